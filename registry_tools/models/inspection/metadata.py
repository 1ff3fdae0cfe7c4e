"""Limit the size of a model's metadata files before they are parsed."""

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
# PyYAML needs minutes to parse a long number to the base of 60, such as 1:1:1:1….
_LONGEST_NUMBER = 1000
_FIRST, _NUMBER = "0123456789.+-", frozenset("0123456789abcdefABCDEFxXoO_:.+-")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The other files that MLflow or this package parses, with their largest number of bytes.
_PARSED_FILES = {
    "input_example.json": 16 * _MIB,
    "serving_input_example.json": 16 * _MIB,
    "requirements.txt": MOST_YAML_BYTES,
}
_YAML_FILES = ("conda.yaml", "python_env.yaml")


def check_metadata_files(folder: Path) -> None:
    """Refuse a model with metadata files, except `MLmodel`, that are too large or use YAML aliases.

    Raises
    ------
    VerificationError
        If a file is refused; the message names the file and its size or line.
    """
    for name, most in _PARSED_FILES.items():
        check_size(folder / name, most)
    for name in _YAML_FILES:
        if not (folder / name).is_file():
            continue
        try:
            _check_events(name, _read_text(folder / name))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise VerificationError(f"{name} is not readable as YAML: {first_line(error, 150)}") from error


def read_yaml(path: Path) -> Any:
    """Check a YAML file of a model and return its content; MLflow may parse it again afterwards.

    Raises
    ------
    VerificationError
        If the file is too large, nested too deeply, or has an alias or anchor.
    OSError, ValueError, yaml.YAMLError, RecursionError
        If the file cannot be read, or is not YAML.
    """
    text = _read_text(path)
    _check_events(path.name, text)
    return yaml.load(text, Loader=_LOADER)


def check_size(path: Path, most: int) -> None:
    """Refuse a file with more than `most` bytes; accept a missing file.

    Raises
    ------
    VerificationError
        If the file is too large; the message names both sizes.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size > most:
        raise VerificationError(
            f"{path.name} has {size:,} bytes, and at most {most:,} are supported: make it smaller, and "
            "register the model again"
        )


def check_names(what: str, names: Sequence[Any], most: int) -> None:
    """Refuse too many columns or classes, and too long names.

    Raises
    ------
    VerificationError
        If they are refused; the message has the number, or the beginning of the name.
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
    """Refuse YAML that a small file makes expensive to parse: aliases, deep nesting, long numbers."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if getattr(event, "anchor", None) is not None:  # an alias event has the anchor it refers to
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
