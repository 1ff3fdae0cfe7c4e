"""Write an output file or folder of a command atomically; each error names it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from registry_tools.errors import InputError, first_line
from registry_tools.files.temp_files import (
    atomic_write,
    flush,
    name_for_process,
    remove_stale,
    resolve_link,
    temporary_prefix,
)


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
    with _translate_write_errors(path), atomic_write(path) as partial:
        yield partial


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder for the body to fill, and rename it to `path` at the end.

    Raises
    ------
    InputError
        If the parent folder does not exist or is not writable, or `path` exists and is not an empty
        folder.
    """
    with folder_beside(path) as partial:
        yield partial
        for part in (*partial.iterdir(), partial):
            flush(part)
        check_output(path, True, ())  # another command may have filled it in the meantime
        partial.replace(resolve_link(path))


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder in the folder of `path`, and remove it at the end, if it exists.

    Raises
    ------
    InputError
        If the folder is not writable.
    """
    target = resolve_link(path)
    remove_stale(target.parent, temporary_prefix(target), r"-\w+\.part")
    name = name_for_process(temporary_prefix(target), f"-{secrets.token_hex(4)}.part")
    folder = target.with_name(name)
    with _translate_write_errors(path):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _translate_write_errors(path: Path) -> Iterator[None]:
    """Raise errors of Arrow and the system as `InputError` with the name of the output."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else first_line(error)
        raise InputError(f"{path}: cannot be written: {reason}") from error


def check_output(path: Path, folder: bool, endings: Iterable[str]) -> None:
    """Check, before any input is read, that an output can be written.

    Parameters
    ----------
    path, folder
        The output, and whether it is a folder.
    endings
        The suffixes that a file may have.

    Raises
    ------
    InputError
        If a file has another suffix or is not a regular file, a folder is not empty, or the parent
        folder does not exist or is not writable.
    """
    if folder:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"{path} exists and is not an empty folder: remove it, or choose another path")
    elif path.suffix.lower() not in endings:
        known = ", ".join(endings)
        raise InputError(f"{path}: unknown format {path.suffix!r}; use one of {known}, or end it with /")
    else:
        refuse_special_file(path)
    around = resolve_link(path).parent
    if not around.is_dir():
        raise InputError(f"{path}: cannot be written: there is no folder {around}")
    if not os.access(around, os.W_OK):
        raise InputError(f"{path}: cannot be written: no permission to write to {around}")


def refuse_special_file(path: Path) -> None:
    """Refuse an existing path that is not a regular file.

    Raises
    ------
    InputError
        If it is a folder, a device or a pipe.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} exists but is not a regular file; choose another path")
