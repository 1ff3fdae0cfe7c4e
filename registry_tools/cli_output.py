"""What the commands have in common: their options, and how an answer is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from registry_tools import command_line

if TYPE_CHECKING:
    from registry_tools.formats import TrustPolicy


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, keys sorted."),
        click.option(
            "--tracking-uri",
            metavar="URI",
            help="The registry. Default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.",
        ),
        command_line.verbose_option,
    ):
        function = option(function)
    return function


def loading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of every command that loads a model."""
    for option in (
        click.option(
            "--trust", multiple=True, metavar="TYPE", help="A type that the model may hold as well."
        ),
        click.option(
            "--allow-code",
            is_flag=True,
            help="Also load formats that run code of their own, such as pickle.",
        ),
    ):
        function = option(function)
    return function


def policy_of(trust: Sequence[str], allow_code: bool) -> TrustPolicy:
    """Return what the options and REGISTRY_TOOLS_TRUST allow together."""
    from registry_tools.formats import TrustPolicy

    return TrustPolicy((*TrustPolicy.from_environment().types, *trust), allow_code)


def print_json(value: Any) -> None:
    """Print a value as JSON, the same for the same value."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False))


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
