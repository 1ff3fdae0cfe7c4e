"""The command that scores files."""

from __future__ import annotations

import contextlib
import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tools.cli import process_setup
from registry_tools.cli.options import common_options, trust_options
from registry_tools.cli.output import end_progress, print_columns, print_json, row_count

if TYPE_CHECKING:
    from registry_tools.batch.job import ScoringSummary
    from registry_tools.files.input_files import InputFiles

_LOCAL = "local[*]"
_ALL = "*"  # columns; a column of this name is '"*"'


@click.command()
@click.argument("ref")
@click.option(
    "--input", "input_address", required=True, metavar="IN",
    help="A CSV (.csv, .csv.gz, .csv.zst) or Parquet file, a folder of them, or a URL.",
)  # fmt: skip
@click.option(
    "--output", required=True, metavar="OUT",
    help="The .parquet or .csv file to write; with / at its end, a folder of Parquet files.",
)  # fmt: skip
@click.option("--proba", is_flag=True, help="Add the probability of each class.")
@click.option(
    "--keep", default=_ALL, show_default=True, metavar="COLUMNS",
    help="The columns of IN to write, as in 'id,day'; * is all.",
)  # fmt: skip
@click.option("--prefix", default="", metavar="TEXT", help="Begins the names of the added columns.")
@click.option(
    "--separator", default=",", show_default=True, help="Between the values of a CSV; \\t is a tab."
)
@click.option("--encoding", default="utf-8", show_default=True, help="Of a CSV.")
@click.option(
    "--on-bad-row", type=click.Choice(["fail", "reject"]), default="fail", show_default=True,
    help="What becomes of all when a row cannot be scored.",
)  # fmt: skip
@click.option("--rejects", metavar="FILE", help="Where such rows go. Default: OUT with .rejects in its name.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes. Default: all cores.")
@click.option(
    "--engine", type=click.Choice(["processes", "spark"]), default="processes", show_default=True,
    help="What computes the predictions; spark needs the extra [spark] and Java.",
)  # fmt: skip
@click.option("--master", metavar="URL", help=f"The master of Spark. Default: {_LOCAL}.")
@trust_options
@common_options
def score(
    ref: str,
    input_address: str,
    output: str,
    keep: str,
    separator: str,
    encoding: str,
    on_bad_row: str,
    rejects: str | None,
    engine: str,
    master: str | None,
    loading: dict[str, Any],
    as_json: bool,
    **options: Any,  # the other arguments of the public `score`
) -> None:
    """Score the rows of files with the version that REF means now, and write their predictions."""
    if rejects is not None and on_bad_row == "fail":
        raise click.UsageError("--rejects goes with --on-bad-row reject")
    if master is not None and engine != "spark":
        raise click.UsageError("--master goes with --engine spark")
    from registry_tools.api import scoring

    if on_bad_row == "reject" and rejects is None:
        rejects = _default_rejects(output, engine)
    with process_setup.ended_by_signals(), contextlib.ExitStack() as stack:
        summary = scoring.score(
            ref,
            input=input_address,
            output=output,
            rejects=rejects,
            keep=None if keep == _ALL else [name for names in csv.reader([keep]) for name in names],
            separator=separator,
            encoding=encoding,
            spark_master=(master or _LOCAL) if engine == "spark" else None,
            begin=lambda files: _bar(stack, files),
            **options,
            **loading,
        )
    if as_json:
        print_json(summary.as_dict())
    else:
        print_columns(_lines(summary))


def _default_rejects(output: str, engine: str) -> str:
    if engine == "spark":
        return f"{output.rstrip('/')}.rejects"
    target = Path(output)
    suffix = f"{target.suffix}.parquet" if output.endswith("/") else target.suffix
    return str(target.with_name(f"{target.stem}.rejects{suffix}"))


def _lines(summary: ScoringSummary) -> list[tuple[str, str]]:
    version = f"{summary.name} version {summary.version}"
    text = f"{row_count(summary.rows)} with {version} → {summary.output}"
    lines = [("scored", text)]
    lines += [("class", f"{name}  {count:,}") for name, count in summary.counts.items()]
    if summary.rejects is not None:
        lines.append(("rejected", f"{row_count(summary.rejected)} → {summary.rejects}"))
    lines.append(("took", f"{summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows/s"))
    if summary.run_id is not None:
        lines.append(("run", f"{summary.run_id} in {summary.experiment}"))
    return lines


def _bar(stack: contextlib.ExitStack, files: InputFiles) -> Callable[[int, int], None]:
    """Show on a terminal how far it is, how fast, and how long it takes still."""
    end_progress()
    bar = stack.enter_context(
        click.progressbar(
            length=files.total,
            label="scoring",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
            item_show_func=lambda text: text,
        )
    )
    began = time.monotonic()
    before = 0

    def report(done: int, rows: int) -> None:
        nonlocal before
        rate = rows / max(time.monotonic() - began, 1e-9)
        bar.update(done - before, f"{rows:,} rows, {rate:,.0f} rows/s")
        before = done

    return report


COMMANDS = (score,)
