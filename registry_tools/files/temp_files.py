"""Temporary files and folders, named by machine and process, and atomic writes.

From the name a later process can tell whether the process that made a file still runs. If not, it
removes the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from registry_tools.processes import process_is_running

_KINDS = ("scoring", "server", "serving")


@contextlib.contextmanager
def atomic_write(path: Path, sync_folder: bool = False) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path`, and rename it to `path` at the end.

    If `path` is a link, the target of the link is replaced. After an error the temporary file is
    removed, and the old file is unchanged.

    Parameters
    ----------
    path
        The file to write.
    sync_folder
        Whether to also flush the folder to the disk, so that the new name survives a power failure.
        The content always does.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    target = resolve_link(path)
    partial = partial_path(target)
    # O_EXCL: fail if the name exists, so that no other user can place a link there first.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield partial
        flush(partial)
        partial.replace(target)
        if sync_folder:
            flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which one thread of one process at a time can hold, during the body.

    The system releases the lock of a killed process. Only the server needs it, which needs Linux or macOS.

    Raises
    ------
    OSError
        If the lock file cannot be opened.
    """
    import fcntl  # Windows has no such module

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def partial_path(target: Path) -> Path:
    """Return a new name, in the same folder, for a file or folder until it is complete."""
    return target.with_name(name_for_process(temporary_prefix(target), f"-{secrets.token_hex(4)}.part"))


def temporary_prefix(target: Path) -> str:
    """Return the prefix for names of temporary files of a file, short enough for any file system."""
    name = target.name
    if len(os.fsencode(name)) > 100:
        name = f"{name[:25]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f".{name}."


def resolve_link(path: Path) -> Path:
    """Return the target of a link, or the path itself if it is no link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def flush(path: Path) -> None:
    """Write a file or the names in a folder to the disk, to survive a power failure."""
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def name_for_process(prefix: str, suffix: str = "") -> str:
    """Return a name that contains the machine and the process number."""
    return f"{prefix}{socket.gethostname()}-{os.getpid()}{suffix}"


def remove_stale(folder: Path, prefix: str, suffix: str) -> None:
    """Remove the temporary files of ended processes of this machine, as far as permissions allow.

    Parameters
    ----------
    folder
        The folder to search.
    prefix, suffix
        The parts of the names before and after machine and process; `suffix` is a regular expression.
    """
    name = re.compile(re.escape(f"{prefix}{socket.gethostname()}-") + rf"(\d+){suffix}")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = name.fullmatch(path.name)
            if found is None or process_is_running(int(found[1])):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def make_temp_folder(kind: str) -> Path:
    """Create a temporary folder, and remove the folders of ended processes."""
    place = Path(tempfile.gettempdir())
    for one in _KINDS:
        remove_stale(place, f"{one}-", r"-\w+")
    return Path(tempfile.mkdtemp(prefix=name_for_process(f"{kind}-", "-"), dir=place))
