"""Run Evidently on the windows that `drift.py` wrote; PYTHON has the packages of `drift_peer.txt`.

    PYTHON drift_peer.py FOLDER

It prints a JSON object with the share of windows in which each rule finds drift.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def columns_of(baseline: pd.DataFrame, window: pd.DataFrame) -> list[tuple[float, float, bool]]:
    """Return for each column the value, the threshold, and whether a value below it means drift."""
    found = Report([DataDriftPreset()]).run(window, baseline).dict()["metrics"]
    return [
        (float(each["value"]), each["config"]["threshold"], "p_value" in each["config"]["method"])
        for each in found
        if each["config"]["type"].endswith("ValueDrift")
    ]


def main() -> int:
    """Run Evidently on each window of a folder, and print the shares."""
    folder = Path(sys.argv[1])
    flagged: dict[str, list[bool]] = {}
    for path in sorted(folder.glob("*-baseline.csv")):
        baseline = pd.read_csv(path)
        for window in sorted(folder.glob(f"{path.name.split('-')[0]}-[0-9]*.csv")):
            columns = columns_of(baseline, pd.read_csv(window))
            flags = [v < bound if small else v >= bound for v, bound, small in columns]
            strict = [v < bound / len(columns) if small else v >= bound for v, bound, small in columns]
            flagged.setdefault("any column, as it comes", []).append(any(flags))
            flagged.setdefault("any column, by Bonferroni", []).append(any(strict))
            flagged.setdefault("half of the columns", []).append(sum(flags) * 2 >= len(flags))
    print(json.dumps({how: sum(each) / len(each) for how, each in flagged.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
