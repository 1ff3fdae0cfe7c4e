"""The settings of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.processes import MEBIBYTE, ResourceLimits

if TYPE_CHECKING:
    from registry_tools.policy.definition import Policy


@dataclass(frozen=True)
class Settings:
    """The options of `registry-tools serve`; times are in seconds, sizes in bytes."""

    ref: str
    host: str = "127.0.0.1"
    port: int = 5001
    allowed_hosts: tuple[str, ...] = ()  # names to accept in `Host`, besides localhost and `host`
    workers: int = 1
    poll: float = 2.0
    cache: str | None = None
    max_body: int = 16 * MEBIBYTE
    max_rows: int = 200_000
    timeout: float = 30.0
    queue: int = 1024
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    access_log: bool = False
    shadow: str | None = None
    log_predictions: str | None = None
    sample: float = 1.0
    log_every: float = 30.0
    grpc_port: int | None = None
    trust_policy: TrustPolicy = field(default_factory=TrustPolicy)
    policy: Policy | None = None  # with it, each version needs a verdict by one of its evaluators
    tracking_uri: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    trial_limits: ResourceLimits = field(default_factory=ResourceLimits)

    @property
    def load_seconds(self) -> float:
        """The longest time to load a version; each other worker may run its trial first."""
        return (self.workers + 1) * self.trial_limits.seconds + 60
