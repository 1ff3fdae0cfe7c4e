"""The edge of a command line: errors become one line and an exit code, logs go to stderr."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from registry_tools.errors import RegistryToolsError

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


def run(
    command: click.Command,
    argv: Sequence[str] | None,
    program: str,
    expected: type[Exception] | tuple[type[Exception], ...] = RegistryToolsError,
) -> int:
    """Run a click command and return its exit code.

    Parameters
    ----------
    command
        The command or group.
    argv
        Arguments after the program's name; None takes those of the process.
    program
        The name that usage and errors show.
    expected
        Errors whose text is written for the person; one with `exit_code` says its own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    collecting = gc.isenabled()
    gc.disable()  # until `imports_done`
    verbose = _is_verbose(argv)
    _quiet(verbose)
    try:
        code = command.main(args=argv, prog_name=program, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _fail(program, f"{error.format_message()}{hint}", 2, verbose)
    except (click.Abort, KeyboardInterrupt):
        return _fail(program, "interrupted", 130, False)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; the interpreter must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except expected as error:
        return _fail(program, str(error), getattr(error, "exit_code", 1), verbose)
    except ModuleNotFoundError as error:
        message = f"{sys.executable} has no {error.name}: activate the project's environment first"
        return _fail(program, f"{message} (. .venv/bin/activate), or install it", 1, verbose)
    except Exception as error:  # noqa: BLE001 - the one edge: a fault of ours, said in one line
        text = str(error)[:300]
        return _fail(
            program, f"unexpected {type(error).__name__}: {text} (-v for more)", 1, verbose
        )
    finally:
        if collecting:
            imports_done()


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


def verbose_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-v`, which `run` reads before click does."""
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, help="Logs and tracebacks on stderr."
    )(function)


def _is_verbose(argv: Sequence[str]) -> bool:
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "-v" in options or "--verbose" in options


def _quiet(verbose: bool) -> None:
    """Bound MLflow's retries and its talk, unless the environment says otherwise."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s",
    )
    if not verbose:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It tells of every retry; the error at the end says it once.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        # MLflow logs the traceback of a database's error; the error at the end says it in a line.
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)
        # What libraries have to say to programmers is no news to who runs the command.
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").setLevel(logging.ERROR)


def _fail(program: str, message: str, code: int, verbose: bool) -> int:
    if sys.stdout is not None:
        sys.stdout.flush()  # what was answered before stands before it, in a pipe as well
    if verbose:
        traceback.print_exc()
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return code
