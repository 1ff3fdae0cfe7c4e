"""The command line `registry-tools`: each command calls the library and prints the result."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from registry_tools.cli import console, exit_codes, predict, promotion, score, serve, show, versions
from registry_tools.cli.options import OrderedGroup, json_option, tracking_option, verbose_option
from registry_tools.cli.output import echo
from registry_tools.cli.protected import approvals, policy

# MLflow, pandas and scikit-learn take two seconds to import, so each command imports them itself.


@click.group(cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@json_option
@tracking_option
@verbose_option
@click.version_option(package_name="registry-pipeline")
@click.pass_context
def cli(ctx: click.Context, /, **options: str | bool | None) -> None:
    """Inspect a model registry, use its versions, and move its stages.

    REF names a version: iris@production, iris/3 or iris/Production. You may give --json,
    --tracking-uri and --verbose before the command or after it.
    """
    given = {name: value for name, value in options.items() if value}
    command = cli.commands.get(ctx.invoked_subcommand or "")
    known = {parameter.name for parameter in command.params} if command else set(given)
    for parameter in cli.params:
        if parameter.name in given and parameter.name not in known:
            raise click.UsageError(f"{ctx.invoked_subcommand} has no option {parameter.opts[0]}")
    ctx.default_map = dict.fromkeys(cli.commands, given)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in your shell.

    For bash, add this line to ~/.bashrc: eval "$(registry-tools completion bash)"
    """
    made = get_completion_class(shell)
    assert made is not None
    for line in made(cli, {}, "registry-tools", "_REGISTRY_TOOLS_COMPLETE").source().splitlines():
        echo(line)


for _module in (show, predict, score, serve, promotion, policy, approvals, versions, console):
    for _command in _module.COMMANDS:
        cli.add_command(_command)
cli.add_command(cli.commands.pop("completion"))  # the last one in the help


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_codes.run(cli, argv, "registry-tools")
