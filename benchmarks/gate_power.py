"""Simulate how often a candidate passes each rule of the champion gate.

    python benchmarks/gate_power.py [SIMULATIONS]

Candidate and champion disagree on a tenth of the rows; the rules depend only on these rows. The accuracy
of the candidate is equal, 1 point lower (the margin), 2 points lower or 2 points higher. The program
prints the table of docs/explanation/promotion-statistics.md.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np

from registry_tools.evaluation.gates.comparison import RULES, champion_gate, too_few_rows
from registry_tools.stats.paired_metric import compare_counts

DISAGREEMENT, MARGIN = 0.1, 0.01
CANDIDATES = {"equal": 0.0, "1 point worse": -0.01, "2 points worse": -0.02, "2 points better": 0.02}
ROWS = (30, 300, 3_000)


@cache
def passed_rules(rows: int, gained: int, lost: int) -> list[str]:
    """Return the rules that a candidate passes; the rows on which both agree have no influence."""
    compared = compare_counts(rows, gained, lost, rows - gained - lost)
    return [
        rule
        for rule in RULES
        if too_few_rows(np.ones(rows, bool), 0) is None and champion_gate(compared, rule, MARGIN, 0).passed
    ]


def shares(difference: float, rows: int, simulations: int) -> dict[str, float]:
    """Return the share of simulations in which a candidate with this true difference passes, by rule."""
    gained, lost = (DISAGREEMENT + difference) / 2, (DISAGREEMENT - difference) / 2
    chances = [gained, lost, 1 - DISAGREEMENT]
    draws = np.random.default_rng(rows).multinomial(rows, chances, size=simulations)
    passed = dict.fromkeys(RULES, 0)
    for only_candidate, only_champion, _ in draws.tolist():
        for rule in passed_rules(rows, only_candidate, only_champion):
            passed[rule] += 1
    return {rule: count / simulations for rule, count in passed.items()}


def main() -> None:
    simulations = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    print("| rule | candidate | " + " | ".join(f"{rows:,} rows" for rows in ROWS) + " |")
    print("| --- | --- |" + " ---: |" * len(ROWS))
    found = {
        (candidate, rows): shares(difference, rows, simulations)
        for candidate, difference in CANDIDATES.items()
        for rows in ROWS
    }
    for rule in RULES:
        for candidate in CANDIDATES:
            cells = [f"{found[candidate, rows][rule]:.0%}" for rows in ROWS]
            print(f"| `{rule}` | {candidate} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
