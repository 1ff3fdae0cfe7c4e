"""Print the results of commands: plain text in a pipe, colours and progress on a terminal."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tools.terminal import printable, printable_json

if TYPE_CHECKING:
    from rich.progress import Progress

    from registry_tools.evaluation.verdict import Verdict

_STYLES = {"passed": "green", "REFUSED": "bold red", "note": "yellow"}
_progress: Progress | None = None  # of the command that works now


def shows_progress(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show on a terminal that a command works, and for how long, until it prints or ends."""

    @functools.wraps(function)
    def with_progress(*arguments: Any, **options: Any) -> Any:
        global _progress
        if not sys.stderr.isatty():
            return function(*arguments, **options)
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        console = Console(stderr=True)
        _progress = Progress(*columns, console=console, transient=True, redirect_stdout=False)
        _progress.add_task(click.get_current_context().command_path, total=None)
        with _progress:
            return function(*arguments, **options)

    return with_progress


def end_progress() -> None:
    """Remove the line that shows the progress, before a command prints."""
    if _progress is not None:
        _progress.stop()


def utc_now() -> datetime:
    """Return the current time; the reports take it as a parameter."""
    return datetime.now(timezone.utc)


def echo(line: str, err: bool = False) -> None:
    """Print one line, and escape control characters, which names and tags may contain."""
    end_progress()
    click.echo(printable(line), err=err)


def row_count(rows: int) -> str:
    """Return a number of rows in words."""
    return f"{rows:,} row{'s' * (rows != 1)}"


def print_json(value: Any) -> None:
    """Print a value as JSON with sorted keys, so that equal values print equally."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    end_progress()
    click.echo(printable_json(text))


def print_columns(rows: Sequence[Sequence[str]], header: bool = False) -> None:
    """Print rows of text in aligned columns; `header` says that the first row names them.

    A terminal shows them in colour, and wraps long cells within their column.
    """
    end_progress()
    lines = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_table(lines, header)
        return
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for row in lines:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _print_table(rows: list[list[str]], header: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in rows[0]:
        table.add_column(Text(title), overflow="fold")
    for row in rows[header:]:
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def verdict_rows(verdict: Verdict) -> list[tuple[str, str, str]]:
    """Return the gates of a verdict as rows of text."""
    return [("passed" if g.passed else "REFUSED", g.gate, g.message) for g in verdict.gates]


def refused_by(verdict: Verdict, error: str) -> str:
    """Return the error line of a refusal: only the gates if its reader sees the verdict in the same place.

    Parameters
    ----------
    verdict
        The verdict, which was printed on stdout.
    error
        The line with the reason, for a reader of stderr alone.
    """
    try:
        if not os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno()):
            return error
    except (AttributeError, OSError, ValueError):  # one of them is closed or is not a file
        return error
    gates = list(dict.fromkeys(gate.gate for gate in verdict.refusals))  # the policy may refuse several times
    return f"refused by the gate{'s' * (len(gates) > 1)} {', '.join(gates)}"


def write_page(path: str, page: str) -> None:
    """Write an HTML page atomically."""
    if path in {"", "-"}:
        raise click.UsageError(f"--html {path!r}: name a file")

    from registry_tools.files.output_file import output_file

    with output_file(Path(path)) as part:
        part.write_text(page, encoding="utf-8")
