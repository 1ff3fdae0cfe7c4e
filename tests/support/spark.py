"""Whether Spark runs on this machine."""

from __future__ import annotations

import os
import shutil

import pytest

NEEDED = "REGISTRY_TOOLS_TEST_SPARK"  # set where CI has to run the tests of Spark


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
