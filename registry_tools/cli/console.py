"""The command `console`, which checks its options and starts the web pages."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import click

from registry_tools.cli.options import tracking_option, verbose_option
from registry_tools.cli.output import echo


def _public_url(_: click.Context, option: click.Parameter, given: str | None) -> str | None:
    if given is not None and not re.fullmatch(r"https?://[\w.\-\[\]:]+/?", given, re.ASCII):
        raise click.BadParameter(
            f"{given!r}: write an address without a path, such as https://console.example.org"
        )
    return given.rstrip("/").lower() if given is not None else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5002, show_default=True,
    help="The port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--public-url", metavar="URL", callback=_public_url,
    help="The address of the HTTPS proxy through which browsers reach the console, without a path.",
)  # fmt: skip
@click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path), metavar="FILE",
    help="The policy of the registry. Default: REGISTRY_TOOLS_POLICY, else ./registry.yaml.",
)  # fmt: skip
@tracking_option
@verbose_option
def console(
    host: str, port: int, public_url: str | None, policy_file: Path | None, tracking_uri: str | None
) -> None:
    """Show the registry as web pages, to approve, promote and roll back in the browser.

    Users sign in with their names and passwords of the MLflow server, and act with their own rights. If the
    registry has no users, the pages only show it.
    """
    if not _is_loopback(host) and not (public_url or "").startswith("https://"):
        raise click.UsageError(
            f"--host {host} would send passwords over the network unencrypted: put a proxy with HTTPS before "
            "the console, and give its address with --public-url https://…"
        )
    from registry_tools.console import server

    server.run(tracking_uri, host, port, public_url, policy_file, echo)


COMMANDS = (console,)
