"""A session of Spark: what it needs, how it is set, and its errors in one line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools import errors
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.log.level": "FATAL",  # an error is reported in one line
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Or a malformed line would count as a row if its last columns are not needed.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    # A folder is marked as complete after it has its name.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}


def check_installed() -> None:
    """Refuse to begin where Spark cannot run.

    Raises
    ------
    UnsupportedOperation
        If pyspark or Java is missing; says how to install it.
    """
    try:
        import joblibspark  # noqa: F401
        import pyspark  # noqa: F401
    except ImportError:
        raise UnsupportedOperation(
            "Spark is not installed: install registry-pipeline[spark] (pip install "
            "--require-hashes -r requirements-spark.lock)"
        ) from None
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        where = f"JAVA_HOME={home} has no bin/java" if home else "there is none on PATH"
        raise UnsupportedOperation(
            f"Spark needs Java 17 or newer, and {where}: install a JRE, or point JAVA_HOME at one"
        )


@contextlib.contextmanager
def spark_session(master: str) -> Iterator[SparkSession]:
    """Start Spark, and stop it after the body; its errors become those of this package.

    Raises
    ------
    RegistryToolsError
        If Spark does not start, or an executor fails; of the class that the executor raised.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark would take any `python3`
    settings = _SETTINGS | {"spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower()}
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # Spark warns of pandas 3
        try:
            builder = SparkSession.builder.master(master).appName("registry-tools score")
            spark = builder.config(map=settings).getOrCreate()
            stack.callback(_stop, spark)
            yield spark
        except Exception as error:
            raised_by_spark = type(error).__module__.partition(".")[0] in {"py4j", "pyspark"}
            if not raised_by_spark:
                raise
            raise _translate(str(error), master) from error


def _stop(spark: SparkSession) -> None:
    with contextlib.suppress(Exception):  # of a cluster that is gone
        spark.stop()


def _translate(trace: str, master: str) -> RegistryToolsError:
    """Return the error that a trace of Java and Python ends with."""
    raised = re.findall(r"^registry_tools\.errors\.(\w+): (.*)$", trace, re.MULTILINE)
    if raised:
        name, message = raised[-1]
        return getattr(errors, name, RegistryToolsError)(message)
    package = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", trace)
    interpreter = re.search(r'Cannot run program "([^"]+)"', trace)
    if package or interpreter:
        lacking = f"the Python package {package[1]!r}" if package else f"the interpreter {interpreter[1]}"  # type: ignore[index]
        return UnsupportedOperation(
            f"the executors of Spark at {master} lack {lacking}: install the packages of this machine on "
            "them, and name their interpreter in PYSPARK_PYTHON"
        )
    missing = re.search(r"\[PATH_NOT_FOUND\] Path does not exist: (.*?)\.? SQLSTATE", trace)
    if missing:
        return InputError(f"{missing[1]}: there is no such file or folder")
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line or "Exception: " in line]
    reason = named[-1] if named else lines[0] if lines else "no reason given"
    return RegistryToolsError(f"Spark at {master} failed: {reason[:300]}")
