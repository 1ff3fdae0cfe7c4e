"""The options of the gates, such as thresholds, the rule, slices and the trust policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry_tools.errors import InputError
from registry_tools.evaluation.eval_data import EvalData
from registry_tools.evaluation.gates.comparison import RULES
from registry_tools.models import signing
from registry_tools.models.trust_policy import TrustPolicy


@dataclass(frozen=True)
class GateOptions:
    """The options of the gates of one promotion."""

    minimum: Mapping[str, float] = field(default_factory=dict)  # the least value, by metric
    maximum: Mapping[str, float] = field(default_factory=dict)  # the greatest value, by metric
    rule: str = "not-worse"
    metric: str | None = None  # to compare by; None takes the champion's, else its own
    margin: float = 0.01  # a difference in the metric, or a share of the champion's value
    baseline: bool = True  # the candidate must beat constant predictions
    slices: tuple[str, ...] = ()  # columns; the candidate may not be worse in any of their groups
    max_latency_ms: float | None = None
    max_latency_ratio: float | None = None  # the candidate's latency by the champion's
    max_size_ratio: float | None = None  # the candidate's size by the champion's
    onnx: bool = False  # demand an ONNX file that predicts the same
    eval_data: EvalData | None = None  # rows to evaluate on, instead of the held-out rows
    trust_policy: TrustPolicy = field(default_factory=TrustPolicy)

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        InputError
            If the rule is unknown, the margin is not between 0 and 1, a threshold is not finite, a
            cost limit is not above 0, or the public key of the policy cannot be used.
        """
        if self.rule not in RULES:
            raise InputError(f"rule={self.rule}: must be one of {', '.join(RULES)}")
        if not 0 < self.margin < 1:
            raise InputError(f"margin={self.margin}: must be above 0 and below 1")
        for name, value in [*self.minimum.items(), *self.maximum.items()]:
            if not math.isfinite(value):
                raise InputError(f"{name}={value}: a threshold must be a finite number")
        if self.trust_policy.public_key is not None:
            signing.verifier(self.trust_policy.public_key)
        for name in ("max_latency_ms", "max_latency_ratio", "max_size_ratio"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise InputError(f"{name}={limit}: must be above 0 and finite")
