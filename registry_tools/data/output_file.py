"""Write an output file of a command atomically; each error names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from registry_tools.data.temp_files import atomic_write, remove_stale, resolve_link, temporary_prefix
from registry_tools.errors import InputError, first_line


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file for the body to write, and rename it to `path` at the end.

    Raises
    ------
    InputError
        If the folder does not exist or is not writable, or `path` exists but is not a regular file.
    """
    refuse_special_file(path)
    target = resolve_link(path)
    remove_stale(target.parent, temporary_prefix(target), r"-\w+\.part")
    try:
        with atomic_write(path) as partial:
            yield partial
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path}: cannot be written: {reason}") from error


def refuse_special_file(path: Path) -> None:
    """Refuse an existing path that is not a regular file.

    Raises
    ------
    InputError
        If it is a folder, a device or a pipe.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} exists but is not a regular file; choose another path")
