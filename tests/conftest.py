"""Load the shared fixtures."""

import atexit
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

# A timeout prints the traceback of its test. pytest-timeout would add the stacks of all other threads, up to
# 1,700 lines, and has no setting against it.
pytest_timeout.dump_stacks = lambda terminal: None

pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.support.stores",
    "tests.support.registry_fixtures",
    "tests.support.serving",
    "tests.support.browser",
]
