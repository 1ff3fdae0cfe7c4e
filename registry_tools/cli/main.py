"""The command line `registry-tools`: each command calls the library and prints the result."""

from __future__ import annotations

from collections.abc import Sequence

import click

from registry_tools.cli import exit_codes, history, predict, promotion, score, serve, show, versions

# MLflow, pandas and scikit-learn take two seconds to import, so each command imports them itself.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="registry-pipeline")
def cli() -> None:
    """Inspect a model registry, use its versions, and move its stages.

    REF names a version: iris@production, iris/3 or iris/Production.
    """


for _module in (show, predict, promotion, history, score, serve, versions):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_codes.run(cli, argv, "registry-tools")
