"""The identity of an input file: what is read later has to be of the same file, unchanged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import fs

from registry_tools.errors import InputError, first_line

_UNREADABLE = (pa.ArrowException, OSError, ValueError)
Fingerprint = tuple[int | None, ...]


@contextlib.contextmanager
def translate_read_errors(where: str) -> Iterator[None]:
    """Turn an error of Arrow or the system into one that names the file."""
    try:
        yield
    except InputError:
        raise
    except _UNREADABLE as error:
        text = first_line(error, 300)
        raise InputError(f"{where}: cannot be read: {text}") from error


def fingerprint_of(path: str, filesystem: fs.FileSystem | None = None) -> Fingerprint:
    """Return what differs between a file and one that replaces it; nothing if there is no file.

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
class FileIdentity:
    """An input file, which several processes open by its name, some of them more than once."""

    path: str
    name: str  # as errors name it
    fingerprint: Fingerprint
    filesystem: fs.FileSystem | None = None

    def check_unchanged(self) -> None:
        """Compare the file with its fingerprint.

        Raises
        ------
        InputError
            If another has its name, or it was written to.
        """
        with translate_read_errors(self.name):
            if fingerprint_of(self.path, self.filesystem) == self.fingerprint:
                return
        raise InputError(
            f"{self.name}: it was changed while it was read: score it again when nothing writes "
            "to it any more"
        )

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Check after the body, and where the body finds the file broken: that may be why."""
        try:
            yield
        except InputError:
            self.check_unchanged()
            raise
        self.check_unchanged()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Let the body read it, from its opening to its end."""
        self.check_unchanged()
        with self.unchanged(), translate_read_errors(self.name):
            yield
