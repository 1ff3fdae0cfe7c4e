"""Options that several commands share, and functions that print results."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry_tools.terminal import printable, printable_json

if TYPE_CHECKING:
    from registry_tools.evaluation.verdict import Verdict
    from registry_tools.promotion.event import Event


def verbose_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-v`; `exit_codes.run` reads it from the arguments before click parses them."""
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, help="Print logs and tracebacks on stderr."
    )(function)


tracking_option = click.option(
    "--tracking-uri",
    metavar="URI",
    help="The address of the registry. Default: as in MLflow, MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI.",
)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command: `--json`, `--tracking-uri` and `--verbose`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON with sorted keys."),
        tracking_option,
        verbose_option,
    ):
        function = option(function)
    return function


trust_option = click.option(
    "--trust",
    multiple=True,
    metavar="TYPE",
    help="Allow this type in the model, or this parameter: MODULE.CLASS.PARAMETER.",
)


def trust_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that loads a model, and pass them to it as `loading`.

    `loading` has the arguments `trust`, `allow_code` and `public_key` of the public functions.
    """
    for option in (
        trust_option,
        click.option(
            "--allow-code", is_flag=True, help="Also load formats that can run code, such as pickle."
        ),
        click.option("--require-signature", is_flag=True, help="Load only versions signed with your key."),
        click.option(
            "--public-key", metavar="FILE", help="Your public key. Default: REGISTRY_TOOLS_PUBLIC_KEY."
        ),
    ):
        function = option(function)

    @functools.wraps(function)
    def with_loading(
        *arguments: Any,
        trust: tuple[str, ...],
        allow_code: bool,
        require_signature: bool,
        public_key: str | None,
        **options: Any,
    ) -> Any:
        from registry_tools.models.trust_policy import TrustPolicy

        loading = {"trust": trust, "allow_code": allow_code, "public_key": public_key}
        if require_signature and TrustPolicy.from_environment(**loading).public_key is None:  # type: ignore[arg-type]
            raise click.UsageError("--require-signature needs --public-key FILE")
        return function(*arguments, loading=loading, **options)

    return with_loading


def loading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options to a command, and pass them to it as one `policy`."""

    @trust_options
    @functools.wraps(function)
    def with_policy(*arguments: Any, loading: dict[str, Any], **options: Any) -> Any:
        from registry_tools.models.trust_policy import TrustPolicy

        return function(*arguments, policy=TrustPolicy.from_environment(**loading), **options)

    return with_policy


actor_option = click.option(
    "--actor", metavar="NAME", help="Your name in the history. Default: the login name."
)


def eval_data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--eval-data` and `--target`, which name a table to evaluate on."""
    for option in (
        click.option("--target", metavar="COLUMN", help="The label column of --eval-data."),
        click.option(
            "--eval-data", metavar="FILE", help="Labelled rows to evaluate on, instead of the held-out rows."
        ),
    ):
        function = option(function)
    return function


def check_eval_data(eval_data: str | None, target: str | None) -> None:
    """Refuse `--eval-data` without `--target`, and the reverse."""
    if (eval_data is None) != (target is None):
        raise click.UsageError("--eval-data and --target go together")


html_option = click.option(
    "--html", metavar="FILE", help="Write the result to this file as one self-contained page."
)


def write_page(path: str, page: str) -> None:
    """Write an HTML page atomically."""
    if path in {"", "-"}:
        raise click.UsageError(f"--html {path!r}: name a file")

    from registry_tools.files.output_file import output_file

    with output_file(Path(path)) as part:
        part.write_text(page, encoding="utf-8")


def utc_now() -> datetime:
    """Return the current time; the reports take it as a parameter."""
    return datetime.now(timezone.utc)


def echo(line: str, err: bool = False) -> None:
    """Print one line, and escape control characters, which names and tags may contain."""
    click.echo(printable(line), err=err)


def print_json(value: Any) -> None:
    """Print a value as JSON with sorted keys, so that equal values print equally."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    click.echo(printable_json(text))


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in aligned columns."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def verdict_rows(verdict: Verdict) -> list[tuple[str, str, str]]:
    """Return the gates of a verdict as rows of text."""
    return [("passed" if g.passed else "REFUSED", g.gate, g.message) for g in verdict.gates]


def outcome_of(event: Event) -> str:
    """Return the outcome of an event as text, marked if it was forced."""
    return f"{event.outcome}, forced" if event.forced else event.outcome
