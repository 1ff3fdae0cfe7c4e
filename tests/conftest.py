"""Load the shared fixtures."""

import os

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
# The jobs of `mlflow server` are those of generative AI: processes that cost more than the tests.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.support.stores",
    "tests.support.registry_fixtures",
    "tests.support.serving",
    "tests.support.browser",
]
