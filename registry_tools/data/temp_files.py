"""Files and folders that carry the process that they are of, and what killed ones leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

from registry_tools.processes import process_is_running

_KINDS = ("scoring", "serving")


def name_for_process(before: str, after: str = "") -> str:
    """Return a name that tells machine and process."""
    return f"{before}{socket.gethostname()}-{os.getpid()}{after}"


def remove_stale(folder: Path, before: str, after: str) -> None:
    """Remove what processes of this machine left that were killed; as far as that may be done.

    Parameters
    ----------
    folder, before, after
        Where to look, and what stands around machine and process; `after` is a pattern.
    """
    name = re.compile(re.escape(f"{before}{socket.gethostname()}-") + rf"(\d+){after}")
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
    """Make a folder for a while, and remove those that killed processes left."""
    place = Path(tempfile.gettempdir())
    for one in _KINDS:
        remove_stale(place, f"{one}-", r"-\w+")
    return Path(tempfile.mkdtemp(prefix=name_for_process(f"{kind}-", "-"), dir=place))
