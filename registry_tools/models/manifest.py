"""Write, read and compare the manifest of a version: the SHA-256 of each file.

The manifest has the parts `model` and `evidence`, the files of both, and `onnx` if the version has an ONNX
file. The version has the digests of all parts as tags. A signature covers the whole manifest.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from registry_tools.errors import VerificationError

# MLflow writes this file into a local model folder when a user loads the model by reference.
WRITTEN_ON_LOAD = frozenset({"registered_model_meta"})

Manifest = dict[str, str]

# The folder of the evidence among the artifacts of a run.
EVIDENCE = "evidence"
# The manifest itself and its signature, which the manifest does not list.
MANIFEST_FILE, SIGNATURE_FILE = "manifest.json", "manifest.sig"
# A promotion adds the ONNX file of a version later, so it has a part of its own in the manifest. Until the
# manifest lists the file, nothing reads it: an interrupted promotion does no harm.
ONNX_FILE = "model.onnx"


@dataclass(frozen=True)
class VersionManifest:
    """The manifest of a version, in its parts."""

    model: Manifest
    evidence: Manifest
    onnx: Manifest = field(default_factory=dict)  # empty if the version has no ONNX file

    def as_dict(self) -> dict[str, Manifest]:
        """Return the content of the file: the part `onnx` only if there is an ONNX file."""
        return {name: part for name, part in asdict(self).items() if part or name != "onnx"}


def manifest_of(folder: Path) -> Manifest:
    """Return the SHA-256 (hex) of every file in a folder and its subfolders, by relative POSIX path.

    Raises
    ------
    VerificationError
        If an entry is neither a file nor a folder, such as a symbolic link, or two names differ only
        in case, which some file systems treat as one file.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    root = folder.resolve()
    named: dict[str, Path] = {}
    for path in files:
        name = path.resolve().relative_to(root).as_posix() if not path.is_symlink() else ""
        if name != path.relative_to(folder).as_posix() or not path.is_file():
            raise VerificationError(f"{path.relative_to(folder)} is not a regular file")
        named[name] = path
    if twins := _twins(named):
        raise VerificationError(f"{twins[0]} and {twins[1]} differ only in case: rename one of them")
    return {name: sha256_of(path) for name, path in named.items() if name not in WRITTEN_ON_LOAD}


def _twins(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that are one file on file systems that ignore case or Unicode form, or None."""
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if first is not name:
            return first, name
    return None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def evidence_of(folder: Path) -> Manifest:
    """Return the SHA-256 (hex) of every file of an evidence folder, except manifest, signature and ONNX file.

    Raises
    ------
    VerificationError
        As for `manifest_of`.
    """
    unlisted = {MANIFEST_FILE, SIGNATURE_FILE, ONNX_FILE}
    return {name: value for name, value in manifest_of(folder).items() if name not in unlisted}


def write_manifest(folder: Path, model: Mapping[str, str]) -> VersionManifest:
    """Write the manifest of a model and of an evidence folder into the evidence folder."""
    manifest = VersionManifest(dict(model), evidence_of(folder))
    (folder / MANIFEST_FILE).write_text(manifest_text(manifest.as_dict()))
    return manifest


def read_manifest(folder: Path) -> VersionManifest | None:
    """Return the manifest in an evidence folder; None if it is missing or invalid.

    A manifest is also invalid if it names a file twice or with an unusual path, such as `../a`.
    """
    try:
        text = (folder / MANIFEST_FILE).read_text()
        content = json.loads(text, object_pairs_hook=_without_double_names)
        parts = content["model"], content["evidence"], content.get("onnx", {})
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return VersionManifest(*parts) if all(_is_manifest(part) for part in parts) else None


def _without_double_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _is_manifest(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(digest, str) for digest in value.values()):
        return False
    plain = all(".." not in Path(n).parts and Path(n).as_posix() == n and n[:1] != "/" for n in value)
    return plain and _twins(value) is None


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Return a manifest in its canonical form: sorted JSON with one line for each file."""
    return json.dumps(dict(manifest), indent=0, sort_keys=True) + "\n"


def digest_of(manifest: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) of a part of a manifest, which the version has as a tag."""
    return hashlib.sha256(manifest_text(manifest).encode()).hexdigest()


def changes(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the differences between two manifests as text, sorted by file."""
    phrases = []
    for path in sorted({*expected, *found}):
        if path not in found:
            phrases.append(f"{path} is missing")
        elif path not in expected:
            phrases.append(f"{path} was added")
        elif expected[path] != found[path]:
            phrases.append(f"{path} was changed")
    return phrases


def check_files(folder: Path, digest: str, manifest: Mapping[str, str] | None = None) -> int:
    """Compare a model folder with the registered files, and return how many files it has.

    Parameters
    ----------
    folder
        The folder with the files of the model.
    digest
        The digest that the version has as a tag.
    manifest
        The manifest, to name the differing files. It is ignored if it does not have the digest.

    Raises
    ------
    VerificationError
        If a file was changed, added or removed after the registration.
    """
    found = manifest_of(folder)
    if digest_of(found) == digest:
        return len(found)
    known = manifest is not None and digest_of(manifest) == digest
    what = "; ".join(changes(manifest or {}, found)[:5]) if known else "its files were changed"
    raise VerificationError(
        f"{what} after registration: the digest is {digest_of(found)[:12]}…, registered was "
        f"{digest[:12]}…; train again, or load another version"
    )


def check_evidence(folder: Path, manifest: VersionManifest, only: Collection[str] | None = None) -> None:
    """Compare an evidence folder, or some of its files, with a manifest.

    Raises
    ------
    VerificationError
        If a file was changed, added or removed; the message names it.
    """
    found_onnx = {ONNX_FILE: sha256_of(folder / ONNX_FILE)} if (folder / ONNX_FILE).is_file() else {}
    both = (manifest.evidence | manifest.onnx, evidence_of(folder) | (found_onnx if manifest.onnx else {}))
    expected, found = ({k: v for k, v in part.items() if only is None or k in only} for part in both)
    differences = [f"{EVIDENCE}/{phrase}" for phrase in changes(expected, found)]
    if differences:
        raise VerificationError(
            f"the evidence differs from its manifest: {'; '.join(differences[:5])}; restore the files, or "
            "register the model again"
        )
