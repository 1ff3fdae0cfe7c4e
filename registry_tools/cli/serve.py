"""The command `serve`, which checks its options and starts the server."""

from __future__ import annotations

import logging
import re
from typing import Any

import click

from registry_tools.cli.options import loading_options, policy_option, tracking_option, verbose_option
from registry_tools.refs import parse_ref
from registry_tools.terminal import log_times


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Option type for times such as `2`, `2s`, `500ms` or `5m`; the value is seconds within bounds."""

    name = "time"
    _UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}  # noqa: RUF012 - a constant

    def __init__(self, least: float, most: float = 3600) -> None:
        self.least, self.most = least, most

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the time in seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        found = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", value.strip())
        try:
            seconds = float(found[1]) * self._UNITS[found[2]] if found else None
        except (KeyError, ValueError):
            seconds = None
        if seconds is None or not self.least <= seconds <= self.most:
            self.fail(
                f"{value!r} is not a time from {self.least:g} to {self.most:g} seconds: "
                "write 2, 2s, 500ms or 5m",
                param,
                ctx,
            )
        return seconds


def _hosts(given: str) -> tuple[str, ...]:
    """Return the names in `--allowed-hosts`: host names without a port, or Starlette's patterns."""
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if not re.fullmatch(r"\*|(\*\.)?[\w.-]+|\[[0-9a-fA-F:.]+\]", name):
            raise click.UsageError(
                f"--allowed-hosts: {name!r} is not a host name; write names without ports, *.example.com or *"
            )
    return names


@click.command()
@click.argument("ref")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5001, show_default=True,
    help="The port to listen on; 0 takes a free one.",
)  # fmt: skip
@click.option(
    "--allowed-hosts", default="", metavar="NAMES",
    help="Host names that clients may send in the Host header, separated by commas, besides localhost "
    "and --host. *.example.com allows all subdomains, * any name.",
)  # fmt: skip
@click.option(
    "--grpc-port", type=click.IntRange(1, 65535),
    help="Also serve the Open Inference Protocol over gRPC on this port.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
    help="The number of processes that serve requests.",
)  # fmt: skip
@click.option(
    "--poll", type=Duration(0.05), default=2.0, show_default="2s", metavar="TIME",
    help="The time between two polls of the stage.",
)  # fmt: skip
@click.option(
    "--cache", metavar="DIR",
    help="Keep the last verified version in this folder, to start with it while the registry is unavailable.",
)  # fmt: skip
@click.option(
    "--api-key-file", metavar="FILE",
    help="Accept only requests with a key from this file: one key per line; # begins a comment line.",
)  # fmt: skip
@click.option(
    "--webhook-secret-file", metavar="FILE",
    help="Poll the stage at once when MLflow sends a webhook that is signed with a secret from this file, "
    "to POST /webhooks/mlflow: one secret per line; # begins a comment line.",
)  # fmt: skip
@click.option("--ssl-certfile", metavar="FILE", help="Serve HTTPS with this certificate.")
@click.option("--ssl-keyfile", metavar="FILE", help="The private key of that certificate.")
@click.option(
    "--max-body", type=click.IntRange(min=1), default=16, show_default=True, metavar="MIB",
    help="The largest request body.",
)  # fmt: skip
@click.option(
    "--max-rows", type=click.IntRange(min=1), default=200_000, show_default=True, metavar="N",
    help="The largest number of rows in one request.",
)  # fmt: skip
@click.option(
    "--timeout", type=Duration(0.1), default=30.0, show_default="30s",
    metavar="TIME", help="The longest time that a request may take.",
)  # fmt: skip
@click.option(
    "--queue", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N",
    help="The largest number of requests that may wait.",
)  # fmt: skip
@click.option(
    "--access-log", is_flag=True,
    help="Print a line of JSON for each request on stderr, without input values.",
)  # fmt: skip
@click.option(
    "--shadow", metavar="REF",
    help="Also run this version or stage on each request, and count equal predictions.",
)  # fmt: skip
@click.option(
    "--log-predictions", metavar="DIR", help="Write requests and predictions to this folder as Parquet."
)
@click.option(
    "--sample", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
    metavar="SHARE", help="The share of requests to log.",
)  # fmt: skip
@click.option(
    "--log-every", type=Duration(0.1), default=30.0, show_default="30s",
    metavar="TIME", help="The longest time until a prediction is written to a file.",
)  # fmt: skip
@click.option(
    "--trial-memory", type=click.IntRange(min=64), default=4096, show_default=True, metavar="MIB",
    help="The memory that a new version may use while a separate process tries it.",
)  # fmt: skip
@click.option(
    "--trial-seconds", type=click.IntRange(1, 600), default=60, show_default=True, metavar="N",
    help="The processor time that this process may use.",
)  # fmt: skip
@click.option(
    "--require-verdict", is_flag=True,
    help="Serve only versions that entered the stage with a verdict of an evaluator in the policy.",
)  # fmt: skip
@policy_option
@loading_options
@tracking_option
@verbose_option
def serve(
    ref: str,
    allowed_hosts: str,
    api_key_file: str | None,
    webhook_secret_file: str | None,
    max_body: int,
    trial_memory: int,
    trial_seconds: int,
    require_verdict: bool,
    policy_file: str | None,
    **options: Any,
) -> int:
    """Serve the version REF over HTTP.

    If REF is a stage, the server follows it: after a promotion it serves the new version without a
    restart.
    """
    refs = [parse_ref(each) for each in (ref, options["shadow"]) if each is not None]
    if webhook_secret_file and all(each.stage is None for each in refs):
        raise click.UsageError(f"--webhook-secret-file needs a stage to follow, and {ref} is one version")
    if options["sample"] < 1 and options["log_predictions"] is None:
        raise click.UsageError("--sample needs --log-predictions")
    if policy_file is not None and not require_verdict:
        raise click.UsageError("--policy needs --require-verdict")
    policy = None
    if require_verdict:
        from registry_tools.policy.policy_file import require_policy
        from registry_tools.policy.stage_entry import require_stage

        require_stage(parse_ref(ref).name, parse_ref(ref).stage)
        policy = require_policy(policy_file)
    from registry_tools.processes import MEBIBYTE, ResourceLimits
    from registry_tools.serving import serve as serving
    from registry_tools.serving.auth import read_key_file
    from registry_tools.serving.settings import Settings

    settings = Settings(
        ref=ref,
        allowed_hosts=_hosts(allowed_hosts),
        api_keys=read_key_file(api_key_file) if api_key_file else (),
        webhook_secrets=read_key_file(webhook_secret_file, "secret") if webhook_secret_file else (),
        max_body=max_body * MEBIBYTE,
        trial_limits=ResourceLimits(trial_memory * MEBIBYTE, trial_seconds),
        policy=policy,
        **options,  # the other options, named as the settings
    )
    log_times()
    logging.getLogger("registry_tools.serving").setLevel(logging.INFO)
    return serving.run(settings)


COMMANDS = (serve,)
