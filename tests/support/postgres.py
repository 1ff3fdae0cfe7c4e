"""A real PostgreSQL for the tests, from a wheel; where there is no such wheel they are skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# It refuses to run as root; this user is on every machine, and owns nothing else.
_OWNER = "nobody" if os.geteuid() == 0 else None
# No test cuts the power; to a busy disk each start would wait many seconds.
_SETTINGS = "listen_addresses = ''\nfsync = off\nfull_page_writes = off\n"


class Postgres:
    """A PostgreSQL that listens on a file alone, with its programs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs  # where `pg_dump` and the others are
        self.folder = folder  # of its socket, and of all that it keeps

    def uri(self, database: str) -> str:
        """Return what `mlflow server` takes; it names the driver, as SQLAlchemy's choice varies."""
        return f"postgresql+psycopg2://postgres@/{database}?host={self.folder}"

    @property
    def environment(self) -> dict[str, str]:
        """What its programs need to be called, and to find it, without a path or an option."""
        path = f"{self.programs}:{os.environ['PATH']}"
        return {"PGHOST": str(self.folder), "PGUSER": "postgres", "PATH": path}

    def run(self, program: str, *options: str) -> str:
        """Run one of its programs on it and return what that prints."""
        return subprocess.run(
            [program, *options],
            check=True,
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, **self.environment},
        ).stdout

    def make(self, database: str, template: str = "template1") -> str:
        """Make a database, empty or as a copy of another, and return its URI."""
        self.run("createdb", "--template", template, database)
        return self.uri(database)

    def start(self) -> None:
        self._as_owner("pg_ctl", "--wait", "--log", str(self.folder / "log"), "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it as a killed machine does: whoever is connected is cut off."""
        self._as_owner("pg_ctl", "--wait", "--mode", how, "stop")

    def _as_owner(self, program: str, *options: str) -> None:
        # Into a file: what is started would keep a pipe open.
        with (self.folder / "control.log").open("ab") as log:
            done = subprocess.run(
                [self.programs / program, "--pgdata", self.folder / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=_OWNER,
                cwd=self.folder,
                timeout=100,
            )
        assert done.returncode == 0, (self.folder / "control.log").read_text()


def has_postgres() -> bool:
    """Whether the wheel is there: not each supported Python and machine has one."""
    return importlib.util.find_spec("pgserver") is not None


def _programs(folder: Path) -> Path:
    """Return where the wheel's programs are, copied to where another user may run them."""
    # Not imported: that would make files in the home folder.
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None:
        pytest.skip("pgserver, a wheel with PostgreSQL, is not there for this Python or machine")
    wheel = Path(found.origin).parent
    if _OWNER is not None:
        for part in (wheel, wheel.with_name("pgserver.libs")):
            shutil.copytree(part, folder / part.name)
        wheel = folder / wheel.name
    return wheel / "pginstall" / "bin"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL in a folder of its own: the path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        running = Postgres(_programs(folder), folder)
        folder.chmod(0o755)
        if _OWNER is not None:
            shutil.chown(folder, _OWNER)
        running._as_owner("initdb", "--no-sync", "--auth=trust", "--username=postgres")
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(f"{_SETTINGS}unix_socket_directories = '{folder}'\n")
        running.start()
        try:
            yield running
        finally:
            running.stop()
