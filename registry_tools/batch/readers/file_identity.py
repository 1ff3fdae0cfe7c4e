"""An input file as it was when it was looked at first: what is read later has to be of the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import fs

from registry_tools.errors import InputError, first_line

_UNREADABLE = (pa.ArrowException, OSError, ValueError)
Mark = tuple[int | None, ...]


@contextlib.contextmanager
def readable(shown: str) -> Iterator[None]:
    """Turn what Arrow and the system say of a file into an error that names it."""
    try:
        yield
    except InputError:
        raise
    except _UNREADABLE as error:
        text = first_line(error, 300)
        raise InputError(f"{shown}: cannot be read: {text}") from error


def mark_of(path: str, filesystem: fs.FileSystem | None = None) -> Mark:
    """Return what tells a file from one that takes its place; nothing if it is not there.

    Parameters
    ----------
    path, filesystem
        The file, and where it is; None is this machine.
    """
    if filesystem is None or isinstance(filesystem, fs.LocalFileSystem):
        try:
            found = os.stat(path)
        except OSError:
            return ()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    info = filesystem.get_file_info(path)
    return (info.size, info.mtime_ns)


@dataclass(frozen=True)
class Known:
    """An input file, which several processes open by its name, some of them more than once."""

    path: str
    shown: str  # as errors name it
    mark: Mark
    filesystem: fs.FileSystem | None = None

    def check(self) -> None:
        """Compare it with what it was.

        Raises
        ------
        InputError
            If another has its name, or it was written to.
        """
        with readable(self.shown):
            if mark_of(self.path, self.filesystem) == self.mark:
                return
        raise InputError(
            f"{self.shown}: it was changed while it was read: score it again when nothing writes "
            "to it any more"
        )

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Compare it after the body, and where the body finds it broken: that may be why."""
        try:
            yield
        except InputError:
            self.check()
            raise
        self.check()

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Let the body read it, from its opening to its end."""
        self.check()
        with self.unchanged(), readable(self.shown):
            yield
