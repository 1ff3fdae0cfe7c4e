"""Simulate how often a candidate passes each rule of the champion gate by metrics other than accuracy.

    python benchmarks/metric_gate_power.py [SIMULATIONS]

Candidate and champion make errors with a correlation of 0.8. By rmse and mae, the candidate is equal, 1%
worse (the margin), 5% worse or 5% better; the errors of `rmse, skewed` are as those of prices. By roc_auc,
of 0.9, it is equal, 1 point worse (the margin), 5 points worse or 5 points better. The program prints the
table of docs/explanation/promotion-statistics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from registry_tools.evaluation.gates.comparison import RULES, champion_gate
from registry_tools.stats.metric import Outcomes, find_metric
from registry_tools.stats.paired_metric import compare_by
from registry_tools.task import CLASSIFICATION, REGRESSION

ROWS, MARGIN, CORRELATION, AUC = (30, 300, 3_000), 0.01, 0.8, 0.9
SHIFTS = {"equal": 0.0, "worse by the margin": 0.01, "worse by 5": 0.05, "better by 5": -0.05}
Pair = tuple[Outcomes, Outcomes]


def noise(rng: np.random.Generator, rows: int) -> list[np.ndarray]:
    """Return the errors of both versions."""
    shared, own, other = rng.standard_normal((3, rows))
    return [np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * each for each in (own, other)]


def numbers(rng: np.random.Generator, rows: int, shift: float, skewed: bool = False) -> Pair:
    """Return two regressions; the candidate's errors are larger by a share."""
    scale = np.exp(0.7 * rng.standard_normal(rows)) if skewed else 1.0
    labels, (own, other) = rng.standard_normal(rows), noise(rng, rows)
    return Outcomes(labels, labels + (1 + shift) * own * scale), Outcomes(labels, labels + other * scale)


def scores(rng: np.random.Generator, rows: int, shift: float) -> Pair:
    """Return two classifiers; the candidate's area under the curve is smaller by `shift`."""
    labels = np.where(rng.random(rows) < 0.4, "b", "a").astype(object)
    labels[:2] = ["a", "b"]
    found = []
    for area, each in zip((AUC - shift, AUC), noise(rng, rows), strict=True):
        distance = np.sqrt(2) * NormalDist().inv_cdf(area)
        second = 1 / (1 + np.exp(-(np.where(labels == "b", distance, 0.0) + each)))
        predicted = np.where(second > 0.5, "b", "a").astype(object)
        found.append(Outcomes(labels, predicted, np.column_stack([1 - second, second]), ("a", "b")))
    return found[0], found[1]


SETTINGS: dict[str, tuple[str, str, Callable[..., Pair]]] = {
    "rmse": ("rmse", REGRESSION, numbers),
    "rmse, skewed": ("rmse", REGRESSION, lambda *given: numbers(*given, skewed=True)),
    "mae": ("mae", REGRESSION, numbers),
    "roc_auc": ("roc_auc", CLASSIFICATION, scores),
}


def shares(setting: str, shift: float, rows: int, simulations: int) -> dict[str, float]:
    """Return the share of simulations in which a candidate passes, by rule."""
    name, task, draw = SETTINGS[setting]
    metric, rng = find_metric(name, task), np.random.default_rng(rows)
    passed = dict.fromkeys(RULES, 0)
    for _ in range(simulations):
        compared = compare_by(metric, *draw(rng, rows, shift))
        for rule in RULES:
            passed[rule] += compared is not None and champion_gate(compared, rule, MARGIN, 0).passed
    return {rule: count / simulations for rule, count in passed.items()}


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    print("| metric | rule | candidate | " + " | ".join(f"{rows:,} rows" for rows in ROWS) + " |")
    print("| --- | --- | --- |" + " ---: |" * len(ROWS))
    for setting in SETTINGS:
        count = simulations // 20 if setting == "roc_auc" else simulations  # the bootstrap takes its time
        found = {
            (candidate, rows): shares(setting, shift, rows, count)
            for candidate, shift in SHIFTS.items()
            for rows in ROWS
        }
        unit = " points" if setting == "roc_auc" else "%"
        for rule in RULES:
            for candidate in SHIFTS:
                title = candidate + unit if candidate[-1].isdigit() else candidate
                cells = [f"{found[candidate, rows][rule]:.0%}" for rows in ROWS]
                print(f"| {setting} | `{rule}` | {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
