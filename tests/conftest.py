"""Load the shared fixtures."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"  # as the command line does
# The jobs of `mlflow server` are those of generative AI: processes that cost more than the tests.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
# Servers keep passed trials in the cache folder, under locks: no test waits for a server of another process.
_CACHE = tempfile.TemporaryDirectory(prefix="test-cache-")  # removed when this process ends
_OWN_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("MPLCONFIGDIR", str(_OWN_CACHE / "matplotlib"))  # or each process looks for fonts
os.environ.setdefault("PIP_CACHE_DIR", str(_OWN_CACHE / "pip"))
os.environ["XDG_CACHE_HOME"] = _CACHE.name

pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.support.stores",
    "tests.support.registry_fixtures",
    "tests.support.serving",
    "tests.support.browser",
]
