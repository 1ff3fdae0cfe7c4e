"""Spark: what it needs, a session whose errors are those of this package, and folders that it writes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_tools import errors
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.log.level": "FATAL",  # an error is reported in one line
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.legacy.javaCharsets": "true",  # for --encoding cp1252
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Otherwise a malformed line is a row if its last columns are not read.
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
def session(master: str) -> Iterator[SparkSession]:
    """Start Spark, and stop it after the body; its errors become those of this package.

    Raises
    ------
    UnsupportedOperation
        If this process has a session already, which would be changed and stopped.
    """
    from pyspark.sql import SparkSession

    if SparkSession.getActiveSession() is not None:
        raise UnsupportedOperation("this process has a Spark session: stop it, or score in another process")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark would take any `python3`
    settings: dict[str, Any] = _SETTINGS | {"spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower()}
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # Spark warns of pandas 3
        try:
            builder = SparkSession.builder.master(master).appName("registry-tools score")
            spark = builder.config(map=settings).getOrCreate()
            stack.callback(_stop, spark)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.default_int_handler)  # not that of Spark
            yield spark
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"py4j", "pyspark"}:
                raise
            raise _translate(str(error), master) from error


def _translate(trace: str, master: str) -> RegistryToolsError:
    """Return the error that a trace of Java and Python ends with."""
    raised = re.findall(r"^registry_tools\.errors\.(\w+): (.*)$", trace, re.MULTILINE)
    if raised:
        name, message = raised[-1]
        return getattr(errors, name, RegistryToolsError)(message)
    lacking = re.search(r"No module named '\S+'|Cannot run program \S+|Python in worker has \D+[\d.]+", trace)
    if lacking:
        return UnsupportedOperation(
            f"the executors of Spark at {master} cannot score ({lacking[0]}): install the packages of this "
            "machine on them, and name their interpreter in PYSPARK_PYTHON"
        )
    missing = re.search(r"\[PATH_NOT_FOUND\] Path does not exist: (\S+?)\.? SQLSTATE", trace)
    if missing:
        return InputError(f"{missing[1]}: there is no such file or folder")
    if "stopped SparkContext" in trace:
        return RegistryToolsError(f"Spark at {master} does not answer: check --master")
    lines = [line.strip() for line in trace.splitlines() if line.strip()] or ["no reason given"]
    named = [line for line in lines if "Error: " in line or "Exception: " in line]
    reason = re.sub(r"^(Caused by: )?[\w.]+(Exception|Error): ", "", named[-1] if named else lines[0])
    return RegistryToolsError(f"Spark at {master} failed: {reason[:300]}")


@contextlib.contextmanager
def output_folder(spark: Any, address: str, given: str) -> Iterator[str]:
    """Yield a temporary folder beside an address; it gets that name when the body is done.

    Raises
    ------
    InputError
        If the input is there, or anything else but an empty folder.
    """
    hadoop = spark._jvm.org.apache.hadoop.fs
    system = hadoop.Path(address).getFileSystem(spark._jsc.hadoopConfiguration())
    target, source = (system.makeQualified(hadoop.Path(path)) for path in (address, given))
    if f"{target}/".startswith(f"{source}/"):
        raise InputError(f"{address}: the input is there as well: name another output")
    _refuse_filled(system, target, address)
    name = f".{target.getName()}.{spark.sparkContext.applicationId}.part"
    partial = hadoop.Path(target.getParent(), name)
    try:
        yield partial.toString()
        _refuse_filled(system, target, address)  # another command may have filled it in the meantime
        system.delete(target, False)
        if not system.rename(partial, target):
            raise InputError(f"{address}: cannot be written: {partial} cannot be renamed")
        system.create(hadoop.Path(target, "_SUCCESS")).close()
    except BaseException:
        _stop(spark)  # a task that still runs would write into the folder after it is deleted
        raise
    finally:
        _in_thread(system.delete, partial, True)


def _refuse_filled(system: Any, target: Any, address: str) -> None:
    """Refuse a file, or a folder that is not empty."""
    if system.exists(target) and (system.getFileStatus(target).isFile() or system.listStatus(target)):
        raise InputError(f"{address} exists and is not an empty folder: remove it, or choose another path")


def _stop(spark: SparkSession) -> None:
    with contextlib.suppress(Exception):  # of a cluster that is gone
        _in_thread(spark.stop)


def _in_thread(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function of Java in another thread, which has its own connection to the JVM.

    A signal may have interrupted a call on the connection of this thread: the next call there would
    read the reply to that one.
    """
    with ThreadPoolExecutor(1) as executor:
        executor.submit(function, *arguments).result()
