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
    # MLflow's own defaults retry an unreachable server for minutes. A person wants to know at once.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    # MLflow reports its use over the network; nothing here talks to anybody but the registry.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Where there is no git, MLflow does without; its library for git would say so at length.
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow would print the run's address on stdout, where the result stands.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def configure(verbose: bool) -> None:
    """Bound MLflow's retries and log output, unless the environment says otherwise."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    log_to_stderr(
        logging.INFO if verbose else logging.WARNING,
        "%(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s",
    )
    if not verbose:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for files of a few kB
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It logs every retry; the error at the end says it once.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # MLflow logs the traceback of a database's error; the error at the end says it in a line.
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)
        # Warnings of libraries are for programmers, and not for users of the command.
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def imports_done() -> None:
    """Leave what was imported out of all garbage collection from here on.

    Importing MLflow and scikit-learn makes a million objects that stay. Looking through them again
    and again while they come, and once more at exit, takes a quarter of a short command's time.
    """
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end it as Ctrl-C does, with what was begun taken away."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM]
    # What `nohup` started is to outlive its terminal.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
