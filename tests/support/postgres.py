"""Run a real PostgreSQL from a wheel; the tests that need it are skipped if there is no such wheel."""

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

# PostgreSQL refuses to run as root; the user `nobody` exists on every machine.
_OWNER = "nobody" if os.geteuid() == 0 else None
# The tests need no protection against power failures, and without it a start does not wait for the disk.
_SETTINGS = "listen_addresses = ''\nfsync = off\nfull_page_writes = off\n"


class Postgres:
    """A PostgreSQL that listens only on a Unix socket, with its command-line programs."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs  # the folder of `pg_dump` and the other programs
        self.folder = folder  # the folder of the socket and the data

    def uri(self, database: str) -> str:
        """Return the URI for `mlflow server`; it names the driver, because SQLAlchemy's default changed."""
        return f"postgresql+psycopg2://postgres@/{database}?host={self.folder}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which the programs are found, and connect, without a path or an option."""
        path = f"{self.programs}:{os.environ['PATH']}"
        return {"PGHOST": str(self.folder), "PGUSER": "postgres", "PATH": path}

    def run(self, program: str, *options: str) -> str:
        """Run one of the command-line programs and return its output."""
        return subprocess.run(
            [program, *options],
            check=True,
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, **self.environment},
        ).stdout

    def make(self, database: str, template: str = "template1") -> str:
        """Create a database, empty or as a copy of another, and return its URI."""
        self.run("createdb", "--template", template, database)
        return self.uri(database)

    def start(self) -> None:
        self._as_owner("pg_ctl", "--wait", "--log", str(self.folder / "log"), "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop the server; the default mode drops all connections, as a crash does."""
        self._as_owner("pg_ctl", "--wait", "--mode", how, "stop")

    def _as_owner(self, program: str, *options: str) -> None:
        # The output goes to a file, because the started server would keep a pipe open.
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
    """Check whether the wheel is installed; some supported Python versions and machines have none."""
    return importlib.util.find_spec("pgserver") is not None


def _programs(folder: Path) -> Path:
    """Return the folder of the wheel's programs, copied to a folder that another user can read."""
    # Importing the package would create files in the home folder.
    found = importlib.util.find_spec("pgserver")
    if found is None or found.origin is None:
        pytest.skip("pgserver, a wheel with PostgreSQL, does not exist for this Python or machine")
    wheel = Path(found.origin).parent
    if _OWNER is not None:
        for part in (wheel, wheel.with_name("pgserver.libs")):
            shutil.copytree(part, folder / part.name)
        wheel = folder / wheel.name
    return wheel / "pginstall" / "bin"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL in a new folder with a short path, because socket paths have a length limit."""
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
