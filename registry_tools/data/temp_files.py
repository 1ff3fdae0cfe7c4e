"""Temporary files and folders whose names carry machine and process, and the one atomic write."""

from __future__ import annotations

import contextlib
import fcntl
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
    """Yield a temporary file beside `path`, which takes its place when the body is done.

    Where `path` is a link, the file that it leads to is replaced. After an error the
    temporary file is removed, and the old file is unchanged.

    Parameters
    ----------
    path
        The file.
    sync_folder
        Whether its name is to outlive a loss of power as well, which its content does.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    target = resolve_link(path)
    partial = target.with_name(name_for_process(temporary_prefix(target), f"-{secrets.token_hex(4)}.part"))
    # Nobody can put a link there first: the name must be new.
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield partial
        _sync(partial)
        partial.replace(target)
        if sync_folder:
            _sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock, which one process and one thread at a time can hold; a killed process loses it.

    Raises
    ------
    OSError
        If the file of the lock cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def temporary_prefix(target: Path) -> str:
    """Return how the names of temporary files of a file begin; short enough for any file system."""
    name = target.name
    if len(os.fsencode(name)) > 100:
        name = f"{name[:25]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f".{name}."


def resolve_link(path: Path) -> Path:
    """Return the file that a link leads to, or the path itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def name_for_process(prefix: str, suffix: str = "") -> str:
    """Return a name that carries machine and process."""
    return f"{prefix}{socket.gethostname()}-{os.getpid()}{suffix}"


def remove_stale(folder: Path, prefix: str, suffix: str) -> None:
    """Remove what expired processes of this machine left, as far as permissions allow.

    Parameters
    ----------
    folder, prefix, suffix
        Where to search, and what stands around machine and process; `suffix` is a pattern.
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
    """Make a temporary folder, and remove those that expired processes left."""
    place = Path(tempfile.gettempdir())
    for one in _KINDS:
        remove_stale(place, f"{one}-", r"-\w+")
    return Path(tempfile.mkdtemp(prefix=name_for_process(f"{kind}-", "-"), dir=place))
