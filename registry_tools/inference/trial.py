"""Try a version in a process of its own, with limits: load it and reproduce its recorded predictions.

A model that crashes, never returns or takes all memory ends that process and not the server. The
list of trusted types, and not the trial, keeps hostile code out.
"""

from __future__ import annotations

import hashlib
import json
import platform
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path

from registry_tools.errors import RegistryToolsError, first_line
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.models.manifest import digest_of, manifest_of, sha256_of
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import MEBIBYTE, ResourceLimits, describe_exit

_LONGEST_REASON = 2_000  # characters


def try_version(artifact: ModelArtifact, trust_policy: TrustPolicy, limits: ResourceLimits) -> str | None:
    """Return why a version cannot serve, None if it can; limits this process for good."""
    limits.apply()
    try:
        load(artifact, trust_policy)
    except Exception as error:  # noqa: BLE001 - a model can raise anything
        if any(isinstance(each, MemoryError) for each in _chain(error)):
            needed = f"more than {limits.memory // MEBIBYTE:,} MiB of memory"
            return f"{artifact} needs {needed}: see --trial-memory"
        if isinstance(error, RegistryToolsError):
            return str(error)[:_LONGEST_REASON]
        return f"{artifact} does not load: {type(error).__name__}: {first_line(error)}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def describe_end(exit_code: int, artifact: ModelArtifact, limits: ResourceLimits) -> str:
    """Return why a trial ended without a result."""
    if exit_code in {-signal.SIGXCPU, -signal.SIGALRM}:
        return (
            f"{artifact} does not load within {limits.cpu_seconds} s of processor time: see --trial-seconds"
        )
    return f"{artifact} ends its process with {describe_exit(exit_code)} when it is loaded"


def trial_key(artifact: ModelArtifact, trust_policy: TrustPolicy, limits: ResourceLimits) -> str:
    """Return the SHA-256 of everything that the result of a trial depends on."""
    key, recorded = trust_policy.public_key, artifact.recorded_predictions
    parts = {
        "files": digest_of(manifest_of(artifact.model)),
        "recorded_predictions": sha256_of(recorded) if recorded.is_file() else None,
        "types": sorted(trust_policy.trusted),
        "allow_code": trust_policy.allow_code,
        "public_key": key.read_bytes().hex() if key is not None else None,
        "limits": asdict(limits),
        "environment": _environment_digest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _environment_digest() -> str:
    """Return the SHA-256 of the machine's type, the interpreter and the installed packages."""
    # The names of these folders have name and version; to read their content takes a second.
    packages = sorted(each.name for folder in sys.path for each in Path(folder).glob("*.dist-info"))
    parts = [platform.machine(), sys.version, *packages]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
