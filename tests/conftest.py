"""Load the shared fixtures."""

import atexit
import itertools
import os
import tempfile
from pathlib import Path

import pytest
import pytest_timeout

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # as the command line does
# The jobs serve MLflow's GenAI features: processes that take more time than the tests.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
# Servers store trial results in the cache folder under locks. With a folder for each test process, no test
# waits for a server of another process.
_CACHE = tempfile.TemporaryDirectory(prefix="test-cache-")
atexit.register(_CACHE.cleanup)  # without this, the interpreter prints a ResourceWarning when it ends
_OWN_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("MPLCONFIGDIR", str(_OWN_CACHE / "matplotlib"))  # or each process scans the fonts
os.environ.setdefault("PIP_CACHE_DIR", str(_OWN_CACHE / "pip"))
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker begin with some of the tests marked `slow(minutes=…)`, the longest first.

    A long test that starts last runs alone while the other workers have nothing left to do. pytest-xdist
    gives each worker an equal part of the list, and later moves tests from the end of one part to another.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    minutes = {item: mark.kwargs.get("minutes", 0) for item in items for mark in item.iter_markers("slow")}
    long = sorted((item for item in items if minutes.get(item)), key=lambda item: -minutes[item])
    others = iter([item for item in items if not minutes.get(item)])
    ordered = []
    for worker in range(workers):
        first = long[worker::workers]
        ordered += [*first, *itertools.islice(others, max(0, len(items) // workers - len(first)))]
    items[:] = [*ordered, *others]


# A timeout prints the traceback of its test. pytest-timeout would add the stacks of all other threads, up to
# 1,700 lines, and has no setting against it.
pytest_timeout.dump_stacks = lambda terminal: None

pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.support.clean_processes",
    "tests.support.stores",
    "tests.support.registry_fixtures",
    "tests.support.serving",
    "tests.support.browser",
]
