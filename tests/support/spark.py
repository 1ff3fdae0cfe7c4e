"""Spark on this machine: whether it runs, and a cluster with two executor processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDED = "REGISTRY_TOOLS_TEST_SPARK"  # set where CI has to run the tests of Spark
CLUSTER = "local-cluster[2,1,1024]"  # two executor processes, with a core and 1,024 MiB each
_EXECUTOR = b"CoarseGrainedExecutorBackend"


def require_spark() -> None:
    """Skip where Spark cannot run, unless it has to."""
    missing = []
    try:
        import pyspark  # noqa: F401
    except ImportError:
        missing.append("pyspark is not installed (make test-slow installs it)")
    if shutil.which("java") is None:
        missing.append("there is no Java on PATH")
    if missing and os.environ.get(NEEDED):
        pytest.fail("; ".join(missing))
    if missing:
        pytest.skip("; ".join(missing))


def spark_environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return variables for a Spark that listens on loopback alone, and keeps its files in a folder."""
    import pyspark

    home, conf = folder / "spark-home", folder / "spark-conf"
    for path in (home, conf):
        path.mkdir()
    for part in Path(pyspark.__file__).parent.iterdir():
        (home / part.name).symlink_to(part)  # executors write below SPARK_HOME
    lines = [f"{name} {value}\n" for name, value in settings.items()]
    (conf / "spark-defaults.conf").write_text("".join(lines))
    return {"SPARK_HOME": str(home), "SPARK_CONF_DIR": str(conf), "SPARK_LOCAL_IP": "127.0.0.1"}


def executors(group: int) -> list[int]:
    """Return the executor processes below the leader of a process group."""
    found = [pid for pid in _processes(group) if _EXECUTOR in _read(pid, "cmdline")]
    # A process that an executor starts has the executor's command line until it runs its own program.
    return [pid for pid in found if _parent(pid) not in found]


def holders(group: int, folder: Path) -> set[int]:
    """Return the processes of a group that have a file of a folder open."""
    return {pid for pid in _processes(group) if any(path.startswith(f"{folder}/") for path in _open(pid))}


def _processes(group: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):
        fields = _status(int(path.name))
        if fields and int(fields[2]) == group:
            yield int(path.name)


def _parent(pid: int) -> int | None:
    fields = _status(pid)
    return int(fields[1]) if fields else None


def _status(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the command: state, parent, process group, and others."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _open(pid: int) -> Iterator[str]:
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            yield os.readlink(link)
    except OSError:
        return
