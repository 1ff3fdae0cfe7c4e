"""Run a command, and turn its error into one line on stderr and an exit code."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence

import click

from registry_tools.cli import process_setup
from registry_tools.errors import RegistryToolsError
from registry_tools.terminal import printable, printable_lines


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
        The arguments after the program's name; None reads `sys.argv`.
    program
        The program's name in usage and error lines.
    expected
        Error types whose message a user can act on. The attribute `exit_code` sets the exit code; the
        default is 1.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    collecting = gc.isenabled()
    gc.disable()  # `process_setup.imports_done` enables it again
    verbose = _is_verbose(argv)
    process_setup.configure(verbose)
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
        # The reader, such as `head`, closed the pipe: keep the interpreter from reporting that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except expected as error:
        return _fail(program, str(error), getattr(error, "exit_code", 1), verbose)
    except ModuleNotFoundError as error:
        message = f"{sys.executable} has no {error.name}: activate the project's environment first"
        return _fail(program, f"{message} (. .venv/bin/activate), or install it", 1, verbose)
    except Exception as error:  # noqa: BLE001 - the one place that reports a bug
        text = str(error)[:300]
        return _fail(program, f"unexpected {type(error).__name__}: {text} (-v for more)", 1, verbose)
    finally:
        if collecting:
            process_setup.imports_done()


def _is_verbose(argv: Sequence[str]) -> bool:
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "-v" in options or "--verbose" in options


def _fail(program: str, message: str, code: int, verbose: bool) -> int:
    if sys.stdout is not None:
        sys.stdout.flush()  # the output comes before the error, in a pipe as well
    if verbose:
        click.echo(printable_lines(traceback.format_exc()), err=True, nl=False)
    click.echo(f"{program}: error: {printable(' '.join(message.split()))}", err=True)
    return code
