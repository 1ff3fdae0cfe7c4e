"""Settings of a command's process: MLflow's retries, logging, garbage collection, signals."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

from registry_tools.terminal import log_to_stderr

_SETTINGS = {
    # By default MLflow retries an unreachable server for minutes; a user needs the error at once.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    # MLflow sends usage data over the network; a command may connect to the registry only.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow works without git, but its git library then prints a long warning.
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow would print the run's address on stdout, which carries the result only.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def configure(verbose: bool) -> None:
    """Limit MLflow's retries and log output, unless the environment already sets them."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    log_to_stderr(
        logging.INFO if verbose else logging.WARNING,
        "%(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s",
    )
    if not verbose:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the files are small
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # urllib3 logs every retry; the command reports the failure once, at the end.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # MLflow logs the traceback of a database error; the command reports the error in one line.
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)
        # Warnings of libraries are for programmers, not for users of a command.
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def imports_done() -> None:
    """Exclude all objects that exist now from garbage collection, then enable it again.

    Importing MLflow and scikit-learn creates a million objects that stay. Scanning them repeatedly
    during the imports, and once more at exit, takes a quarter of a short command's time.
    """
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End the body on SIGTERM and SIGHUP as Ctrl-C does, so that it can remove temporary files."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM]
    # `nohup` ignores SIGHUP so that the process outlives its terminal.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
