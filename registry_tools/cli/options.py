"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from registry_tools.cli.output import shows_progress


class OrderedGroup(click.Group):
    """A group whose help shows the commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in that order; click sorts them."""
        return list(self.commands)


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


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON with sorted keys.")


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, `--tracking-uri` and `--verbose` to a command, and show that it works."""
    for decorate in (shows_progress, json_option, tracking_option, verbose_option):
        function = decorate(function)
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
    """Add the same options to a command, and pass them to it as one `trust_policy`."""

    @trust_options
    @functools.wraps(function)
    def with_trust_policy(*arguments: Any, loading: dict[str, Any], **options: Any) -> Any:
        from registry_tools.models.trust_policy import TrustPolicy

        return function(*arguments, trust_policy=TrustPolicy.from_environment(**loading), **options)

    return with_trust_policy


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

policy_option = click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    help="The policy of the registry. Default: REGISTRY_TOOLS_POLICY, else ./registry.yaml.",
)
