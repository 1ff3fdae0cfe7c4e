"""Write an output file or folder of a command atomically; each error names it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from registry_tools.errors import InputError, first_line
from registry_tools.files import temp_files
from registry_tools.files.temp_files import resolve_link


@contextlib.contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file for the body to write, and rename it to `path` at the end.

    Raises
    ------
    InputError
        If the folder does not exist or is not writable, or `path` exists but is not a regular file.
    """
    _refuse_special_file(path)
    with _write_errors_translated(path), temp_files.atomic_write(path) as partial:
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
            temp_files.flush(part)
        _refuse_filled_folder(path)  # another command may have filled it in the meantime
        partial.replace(resolve_link(path))


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a new temporary folder in the folder of `path`, and remove it at the end, if it exists.

    Raises
    ------
    InputError
        If the folder is not writable.
    """
    folder = temp_files.partial_path(resolve_link(path))
    with _write_errors_translated(path):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _write_errors_translated(path: Path) -> Iterator[None]:
    """Remove partial outputs of ended processes, and raise the errors of the body with the output's name."""
    target = resolve_link(path)
    temp_files.remove_stale(target.parent, temp_files.temporary_prefix(target), r"-\w+\.part")
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else first_line(error)
        raise InputError(f"{path}: cannot be written: {reason}") from error


def check_output(path: Path, folder: bool, endings: Collection[str], inputs: Collection[Path] = ()) -> None:
    """Check, before any input is read, that an output can be written and is no input.

    Parameters
    ----------
    path, folder
        The output, and whether it is a folder.
    endings
        The suffixes that a file may have.
    inputs
        The files and folders that are read, without links.

    Raises
    ------
    InputError
        If a file has another suffix or is not a regular file, a folder is not empty, the parent folder
        does not exist or is not writable, or the output is an input or lies in one.
    """
    if folder:
        _refuse_filled_folder(path)
    elif path.suffix.lower() not in endings:
        known = ", ".join(endings)
        raise InputError(f"{path}: unknown format {path.suffix!r}; use one of {known}, or end it with /")
    else:
        _refuse_special_file(path)
    around = resolve_link(path).parent
    if not around.is_dir():
        raise InputError(f"{path}: cannot be written: there is no folder {around}")
    if not os.access(around, os.W_OK):
        raise InputError(f"{path}: cannot be written: no permission to write to {around}")
    target = path.resolve()
    if target in inputs:
        raise InputError(f"{path}: it is the input as well: name another output")
    if any(each in inputs for each in target.parents):
        raise InputError(
            f"{path}: it lies in the folder that is read, and would be input the next time: "
            "name another output"
        )


def _refuse_filled_folder(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists and is not an empty folder: remove it, or choose another path")


def _refuse_special_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise InputError(f"{path} exists but is not a regular file; choose another path")
