"""Caps on the metadata files of a model, checked before they are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from registry_tools.errors import VerificationError, first_line

_MIB = 1 << 20
MOST_YAML_BYTES = 2 * _MIB
MOST_COLUMNS = 10_000
MOST_TENSOR_COLUMNS = 1_000_000
MOST_CLASSES = 10_000
LONGEST_NAME = 500
_MOST_DEPTH = 50
# PyYAML takes minutes for a number such as 1:1:1:1…, to the base of 60.
_LONGEST_NUMBER = 1000
_FIRST, _NUMBER = "0123456789.+-", frozenset("0123456789abcdefABCDEFxXoO_:.+-")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The files beside `MLmodel` that MLflow or this package parses, and their most bytes.
_PARSED_FILES = {
    "input_example.json": 16 * _MIB,
    "serving_input_example.json": 16 * _MIB,
    "requirements.txt": MOST_YAML_BYTES,
}
_YAML_FILES = ("conda.yaml", "python_env.yaml")


def check_metadata_files(folder: Path) -> None:
    """Refuse a model whose metadata files beside `MLmodel` are too large, or are YAML with aliases.

    Raises
    ------
    VerificationError
        Names the file and its size or line.
    """
    for name, most in _PARSED_FILES.items():
        check_size(folder / name, most)
    for name in _YAML_FILES:
        if not (folder / name).is_file():
            continue
        try:
            _check_events(name, _read_text(folder / name))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise VerificationError(f"{name} is no readable YAML: {first_line(error, 150)}") from error


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file of a model, which PyYAML and MLflow may then parse again.

    Raises
    ------
    VerificationError
        If the file is too large, nested too deeply, or has an alias or anchor.
    OSError, ValueError, yaml.YAMLError, RecursionError
        If it cannot be read, or is no YAML.
    """
    text = _read_text(path)
    _check_events(path.name, text)
    return yaml.load(text, Loader=_LOADER)


def check_size(path: Path, most: int) -> None:
    """Refuse a file of more bytes than are allowed; a missing one is fine.

    Raises
    ------
    VerificationError
        Names both sizes.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size > most:
        raise VerificationError(
            f"{path.name} has {size:,} bytes, and at most {most:,} are read: make it smaller, and "
            "register the model again"
        )


def check_names(what: str, names: Sequence[Any], most: int) -> None:
    """Refuse too many columns or classes, and names that are too long.

    Raises
    ------
    VerificationError
        Names the number, or the beginning of the name.
    """
    if len(names) > most:
        raise VerificationError(f"MLmodel names {len(names):,} {what}, and at most {most:,} are supported")
    for name in names:
        if not isinstance(name, str):
            raise VerificationError(f"MLmodel has {str(name)[:50]!r} among its {what}: write it as text")
        if len(name) > LONGEST_NAME:
            raise VerificationError(
                f"MLmodel has a name of {len(name):,} characters among its {what} ({name[:20]!r}…): at most "
                f"{LONGEST_NAME} are supported"
            )


def _read_text(path: Path) -> str:
    check_size(path, MOST_YAML_BYTES)
    return path.read_text(encoding="utf-8")


def _check_events(name: str, text: str) -> None:
    """Refuse YAML that is cheap to write and expensive to construct."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if getattr(event, "anchor", None) is not None:  # an alias has the anchor that it repeats
            raise VerificationError(
                f"{name} has an alias or anchor in line {line}: a few of them expand to gigabytes; write "
                "the value out at each place"
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise VerificationError(f"{name} is nested more than {_MOST_DEPTH} deep in line {line}")
        value = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else ""
        if len(value) > _LONGEST_NUMBER and value[0] in _FIRST and not set(value) - _NUMBER:
            raise VerificationError(f"{name} has a number of {len(value):,} digits in line {line}")
