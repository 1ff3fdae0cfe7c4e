"""The difference of a candidate and a champion in one metric, with the rows that a test of it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from registry_tools.stats.intervals import Z_ONE_SIDED

_Z_POWER = NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class MetricDifference:
    """The paired comparison of a candidate and a champion by one metric.

    `difference` is the candidate's value minus the champion's, with its 95% interval. `gain` is how much
    better the candidate is, in the units of the margin, and `bound` its one-sided 95% lower limit. If less
    is better, the metric is an error with a unit: `gain`, `bound` and the margin are then shares of the
    champion's value.
    """

    metric: str
    rows: int
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    gain: float
    bound: float
    p_worse: float
    p_better: float
    less_is_better: bool = False
    # Of the accuracy and of a recall: the number of rows that only one of the versions predicts right.
    only_candidate_right: int | None = None
    only_champion_right: int | None = None

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is the accuracy, which messages do not name."""
        return self.metric == "accuracy"

    @property
    def prefix(self) -> str:
        """The name of the metric for messages, where values without a name are accuracies."""
        return "" if self.is_accuracy else f"{self.metric} "

    @property
    def format(self) -> str:
        """The format of the values: four decimals, or five digits of a value with a unit."""
        return ".5g" if self.less_is_better else ".4f"

    @property
    def summary(self) -> str:
        """Both values, their difference with its interval, and the p-value, in one line."""
        return (
            f"{self.prefix}{self.candidate:{self.format}} and {self.champion:{self.format}}, "
            f"difference {self.difference:+{self.format}} [{self.low:+{self.format}}, "
            f"{self.high:+{self.format}}], p(first worse) = {self.p_worse:.3g}"
        )

    @property
    def p_value(self) -> float:
        """The two-sided p-value."""
        return min(1.0, 2 * min(self.p_worse, self.p_better))

    def rows_needed(self, margin: float) -> int:
        """Return the number of rows at which an equal candidate passes `non-inferior` in 80% of cases.

        The estimate uses the normal approximation and the observed standard error; for accuracy, the
        observed rate of disagreement. Its minimum for accuracy is the number of rows for two versions
        that never disagree, at which the bound is -z²/(rows + z²).
        """
        reach = (Z_ONE_SIDED + _Z_POWER) / margin
        if not self.is_accuracy:
            return math.ceil(self.rows * ((self.gain - self.bound) / Z_ONE_SIDED * reach) ** 2)
        assert self.only_candidate_right is not None
        assert self.only_champion_right is not None
        disagreement = (self.only_candidate_right + self.only_champion_right) / self.rows
        always = math.floor(Z_ONE_SIDED**2 * (1 - margin) / margin) + 1
        return max(always, math.ceil(disagreement * reach**2))

    def metrics(self) -> dict[str, float]:
        """Return the values to log, by name."""
        value, more = "value", ["gain"]
        if self.is_accuracy:
            value, more = "accuracy", ["only_candidate_right", "only_champion_right"]
        names = ["rows", "difference", "low", "high", "bound", "p_worse", "p_better", *more]
        values = {f"candidate_{value}": self.candidate, f"champion_{value}": self.champion}
        return values | {name: float(getattr(self, name)) for name in names}
