"""Simulate how often the gate `slices` refuses a candidate.

    python benchmarks/slice_power.py [SIMULATIONS]

In each group, candidate and champion disagree on a tenth of the rows. In one group the candidate is some
points worse; in the other groups both are equal. The program prints the table of
docs/explanation/promotion-statistics.md.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

from registry_tools.evaluation.gates.slices import Group, slices_gate
from registry_tools.stats.metric_difference import MetricDifference
from registry_tools.stats.paired_metric import compare_counts

DISAGREEMENT = 0.1
GROUPS = (2, 10)
ROWS = (20, 100, 500)
HARM = {"none": 0.0, "5 points": 0.05, "10 points": 0.1, "20 points": 0.2}


@functools.cache  # the same counts occur often
def _compare(rows: int, gained: int, lost: int, both: int) -> MetricDifference:
    return compare_counts(rows, gained, lost, both)


def refused(groups: int, rows: int, harm: float, simulations: int) -> float:
    """Return the share of candidates that the gate refuses."""
    gained = np.full(groups, DISAGREEMENT / 2)
    gained[0] = max(0.0, (DISAGREEMENT - harm) / 2)
    lost = gained.copy()
    lost[0] += harm
    generator = np.random.default_rng(groups * rows)
    count = 0
    for _ in range(simulations):
        compared = []
        for own, other in zip(gained, lost, strict=True):
            only_candidate, only_champion, _ = generator.multinomial(rows, [own, other, 1 - own - other])
            compared.append(_compare(rows, int(only_candidate), int(only_champion), 0))
        count += not slices_gate([Group("g", str(n), rows, c) for n, c in enumerate(compared)]).passed
    return count / simulations


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    print("| groups | worse in one by | " + " | ".join(f"{rows} rows a group" for rows in ROWS) + " |")
    print("| ---: | --- |" + " ---: |" * len(ROWS))
    for groups in GROUPS:
        for name, harm in HARM.items():
            cells = [f"{refused(groups, rows, harm, simulations):.0%}" for rows in ROWS]
            print(f"| {groups} | {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
