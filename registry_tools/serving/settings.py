"""The settings of the server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry_tools.models.trust_policy import TrustPolicy

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """The options of `registry-tools serve`; times are in seconds, sizes in bytes."""

    ref: str
    host: str = "127.0.0.1"
    port: int = 5001
    allowed_hosts: tuple[str, ...] = ()  # names in `Host`, beside the loopback's and `host`
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
    trust: tuple[str, ...] = ()
    allow_code: bool = False
    public_key: str | None = None
    tracking_uri: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def policy(self) -> TrustPolicy:
        """What the operator allows a model to contain."""
        from registry_tools.models.trust_policy import TrustPolicy

        key = Path(self.public_key) if self.public_key else None
        return TrustPolicy(self.trust, self.allow_code, key)

    def to_json(self) -> str:
        """Return them as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        for name in ("trust", "api_keys", "allowed_hosts"):
            content[name] = tuple(content[name])
        return cls(**content)
