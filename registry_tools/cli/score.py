"""The command that scores files."""

from __future__ import annotations

import codecs
import contextlib
import csv
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry_tools.cli import process_setup
from registry_tools.cli.options import common_options, loading_options, print_columns, print_json
from registry_tools.refs import parse_ref

if TYPE_CHECKING:
    from registry_tools.batch.request import ScoringSummary
    from registry_tools.data.input_files import InputFiles
    from registry_tools.models.trust_policy import TrustPolicy

_LOCAL = "local[*]"


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
@click.option("--keep", metavar="COLUMNS", help="The columns of IN to write, as in 'id,day'. Default: all.")
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
@loading_options
@common_options
def score(
    ref: str,
    input_address: str,
    output: str,
    proba: bool,
    keep: str | None,
    prefix: str,
    separator: str,
    encoding: str,
    on_bad_row: str,
    rejects: str | None,
    workers: int | None,
    engine: str,
    master: str | None,
    policy: TrustPolicy,
    as_json: bool,
    tracking_uri: str | None,
) -> None:
    """Score the rows of files with the version that REF means now, and write their predictions."""
    model_ref = parse_ref(ref)
    if rejects is not None and on_bad_row == "fail":
        raise click.UsageError("--rejects goes with --on-bad-row reject")
    if master is not None and engine != "spark":
        raise click.UsageError("--master goes with --engine spark")
    from registry_tools.batch.request import ScoringRequest
    from registry_tools.batch.scoring_job import score as score_files

    target, folder = Path(output), output.endswith("/")
    beside = target.with_name(f"{target.stem}.rejects{target.suffix}{'.parquet' if folder else ''}")
    request = ScoringRequest(
        ref=model_ref,
        input=input_address,
        output=target,
        folder=folder,
        rejects=None if on_bad_row == "fail" else Path(rejects) if rejects else beside,
        proba=proba,
        keep=None if keep is None else tuple(name for names in csv.reader([keep]) for name in names),
        prefix=prefix,
        separator=_check_separator(separator.replace("\\t", "\t")),
        encoding=_check_encoding(encoding),
        workers=workers,
        master=(master or _LOCAL) if engine == "spark" else None,
    )
    with process_setup.ended_by_signals(), contextlib.ExitStack() as stack:
        if engine == "spark":
            from registry_tools.spark import check_installed

            check_installed()
            from registry_tools.batch import spark_job

            reject_address = rejects or f"{output.rstrip('/')}.rejects" if on_bad_row == "reject" else None
            summary = spark_job.score(request, output, reject_address, policy, tracking_uri)
        else:
            summary = score_files(request, policy, tracking_uri, lambda files: _bar(stack, files))
    if as_json:
        print_json(asdict(summary))
    else:
        print_columns(_lines(summary))


def _check_separator(text: str) -> str:
    if len(text) != 1 or not text.isascii() or text in '"\r\n':
        raise click.BadParameter(f"{text!r} is not one ASCII character", param_hint="--separator")
    return text


def _check_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise click.BadParameter(f"Python has no encoding {name!r}", param_hint="--encoding") from None


def _lines(summary: ScoringSummary) -> list[tuple[str, str]]:
    text = f"{summary.rows:,} rows with {summary.name} version {summary.version} → {summary.output}"
    lines = [("scored", text)]
    lines += [("class", f"{name}  {count:,}") for name, count in summary.counts.items()]
    if summary.rejects is not None:
        lines.append(("rejected", f"{summary.rejected:,} rows → {summary.rejects}"))
    lines.append(("took", f"{summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows/s"))
    if summary.run_id is not None:
        lines.append(("run", f"{summary.run_id} in {summary.experiment}"))
    return lines


def _bar(stack: contextlib.ExitStack, files: InputFiles) -> Callable[[int, int], None]:
    """Show on a terminal how far it is, how fast, and how long it takes still."""
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
