"""Simulate how often each 95% interval contains the true value.

    python benchmarks/interval_coverage.py [SIMULATIONS]

The program prints the table of docs/explanation/promotion-statistics.md. The settings:

- accuracy 0.9 and 0.97; recall and precision use the same interval;
- balanced accuracy of 3 classes of equal size with recalls of 0.9, and of 10 classes with recalls from
  0.98 down to 0.75: the largest class has a third of the rows, the smallest one row in 80;
- the difference in accuracy of two versions that disagree on a tenth of the rows (equal, or 2 points
  apart) or on one row in fifty (equal), and the difference in balanced accuracy with the classes above;
- log loss of a calibrated model with two classes (mean 0.36), of a model with well separated classes, as in
  Iris (mean 0.17), and of a forest of 100 trees, which predicts some probabilities of exactly 0;
- the difference in log loss of two versions with independent noise in their scores; in one setting, the
  log odds of the second version are also 15% larger.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from registry_tools.stats.intervals import Estimate, mean_share, paired_difference
from registry_tools.stats.losses import mean_log_loss, row_losses
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import CLASSIFICATION

ROWS = (10, 30, 300, 3_000)
TRUTH_ROWS = 2_000_000
SKEWED = 0.7 ** np.arange(10)  # sizes of ten classes
Rng = np.random.Generator
Interval = Callable[[Rng, int], Estimate]
LABELS = ("no", "yes")


def sizes(rows: int, classes: int) -> npt.NDArray[np.int64]:
    """Return the number of rows of each class, at least one: equal for three classes, skewed for ten."""
    weights = SKEWED if classes == 10 else np.ones(classes)
    counts = np.maximum(np.floor(rows * weights / weights.sum()), 1).astype(np.int64)
    counts[0] += max(0, rows - counts.sum())
    return counts


def recalls(classes: int) -> npt.NDArray[np.float64]:
    return np.linspace(0.98, 0.75, 10) if classes == 10 else np.full(classes, 0.9)


def share(accuracy: float) -> tuple[float, Interval]:
    return accuracy, lambda rng, rows: mean_share([rng.binomial(rows, accuracy)], [rows])


def balanced(classes: int) -> tuple[float, Interval]:
    def interval(rng: Rng, rows: int) -> Estimate:
        counts = sizes(rows, classes)
        return mean_share(rng.binomial(counts, recalls(classes)).tolist(), counts.tolist())

    return float(recalls(classes).mean()), interval


def paired(disagreement: float, difference: float) -> tuple[float, Interval]:
    gained, lost = (disagreement + difference) / 2, (disagreement - difference) / 2

    def interval(rng: Rng, rows: int) -> Estimate:
        one, two, _ = rng.multinomial(rows, [gained, lost, 1 - disagreement])
        return paired_difference([one], [two], [rows])

    return difference, interval


def paired_balanced(classes: int, kept: float) -> tuple[float, Interval]:
    """Return the setting of two versions that disagree on a share `1 - recall` of the rows of each class."""
    wrong = 1 - recalls(classes)

    def interval(rng: Rng, rows: int) -> Estimate:
        counts = sizes(rows, classes)
        disagreed = rng.binomial(counts, wrong)
        gained = rng.binomial(disagreed, kept)
        return paired_difference(gained.tolist(), (disagreed - gained).tolist(), counts.tolist())

    return float(np.mean(wrong * (2 * kept - 1))), interval


Scores = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]


def scores(rng: Rng, rows: int, mean: float) -> Scores:
    """Return labels, shape (rows,), and the true log odds of "yes", shape (rows,)."""
    odds = rng.normal(mean, 2, rows) * rng.choice([-1, 1], rows)
    return rng.random(rows) < expit(odds), odds


def probabilities(rng: Rng, odds: npt.NDArray[np.float64], trees: int) -> npt.NDArray[np.float64]:
    yes = expit(odds)
    if trees:
        yes = rng.binomial(trees, yes) / trees
    return np.column_stack([1 - yes, yes])


def outcomes(labels: npt.NDArray[np.bool_], given: npt.NDArray[np.float64]) -> Outcomes:
    names = np.array(LABELS)[labels.astype(int)]
    return Outcomes(names, names, given, LABELS)


def loss(mean: float, trees: int = 0) -> tuple[float, Interval]:
    def losses(rng: Rng, rows: int):
        labels, odds = scores(rng, rows, mean)
        return row_losses(outcomes(labels, probabilities(rng, odds, trees)))

    truth = losses(np.random.default_rng(0), TRUTH_ROWS).values.mean()
    return float(truth), lambda rng, rows: mean_log_loss(losses(rng, rows))


def paired_loss(mean: float, sureness: float, trees: int = 0) -> tuple[float, Interval]:
    log_loss = find_metric("log_loss", CLASSIFICATION)

    def both(rng: Rng, rows: int) -> list[Outcomes]:
        labels, odds = scores(rng, rows, mean)
        return [
            outcomes(labels, probabilities(rng, factor * odds + rng.normal(0, 0.5, rows), trees))
            for factor in (1.0, sureness)
        ]

    def interval(rng: Rng, rows: int) -> Estimate:
        found = compare_by(log_loss, *both(rng, rows))
        return Estimate(found.difference, found.low, found.high)

    truth = 0.0
    if sureness != 1:
        one, two = both(np.random.default_rng(0), TRUTH_ROWS)
        truth = log_loss.compute(one) - log_loss.compute(two)
    return truth, interval


SETTINGS: dict[tuple[str, str], Callable[[], tuple[float, Interval]]] = {
    ("accuracy", "0.9"): lambda: share(0.9),
    ("accuracy", "0.97"): lambda: share(0.97),
    ("balanced accuracy", "3 equal classes"): lambda: balanced(3),
    ("balanced accuracy", "10 skewed classes"): lambda: balanced(10),
    ("log loss", "calibrated"): lambda: loss(2),
    ("log loss", "classes far apart"): lambda: loss(4),
    ("log loss", "forest"): lambda: loss(3, trees=100),
    ("difference in accuracy", "equal"): lambda: paired(0.1, 0),
    ("difference in accuracy", "2 points"): lambda: paired(0.1, -0.02),
    ("difference in accuracy", "hardly any disagreement"): lambda: paired(0.02, 0),
    ("difference in balanced accuracy", "3 equal classes"): lambda: paired_balanced(3, 0.5),
    ("difference in balanced accuracy", "10 skewed classes"): lambda: paired_balanced(10, 0.7),
    ("difference in log loss", "calibrated, equal"): lambda: paired_loss(2, 1),
    ("difference in log loss", "far apart, one surer"): lambda: paired_loss(4, 1.15),
    ("difference in log loss", "forest, equal"): lambda: paired_loss(3, 1, trees=100),
    ("difference in log loss", "forest, one surer"): lambda: paired_loss(3, 1.15, trees=100),
}


def coverage(truth: float, interval: Interval, rows: int, simulations: int) -> float:
    """Return the share of simulations in which the interval contains the true value."""
    rng = np.random.default_rng(rows)
    inside = 0
    for _ in range(simulations):
        found = interval(rng, rows)
        inside += found.low - 1e-9 <= truth <= found.high + 1e-9
    return inside / simulations


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    print("| interval of | setting | " + " | ".join(f"{rows:,} rows" for rows in ROWS) + " |")
    print("| --- | --- |" + " ---: |" * len(ROWS))
    for (metric, name), setting in SETTINGS.items():
        truth, interval = setting()
        cells = [f"{coverage(truth, interval, rows, simulations):.1%}" for rows in ROWS]
        print(f"| {metric} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
