"""Time two commands in turn, A B A B …, and compare them as ratios, because the machines are noisy."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command: `argv`, run in the folder that `prepare` returns, with additional variables."""

    title: str
    argv: Sequence[str | Path]
    prepare: Callable[[], Path]
    environment: dict[str, str]


def seconds(command: Command) -> float:
    """Run a command once and return its wall time in seconds."""
    folder = command.prepare()
    began = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command.argv],
        cwd=folder,
        env=os.environ | command.environment,
        capture_output=True,
        text=True,
    )
    elapsed = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{command.title}: exit {done.returncode}\n{done.stderr}")
    return elapsed


def compare(a: Command, b: Command, pairs: int, wanted: float) -> bool:
    """Print the medians and the median of the ratios A/B; return whether it is at most `wanted`."""
    seconds(a), seconds(b)  # fills the caches of the disk and of Python; not counted
    times = [(seconds(a), seconds(b)) for _ in range(pairs)]
    ratios = [first / second for first, second in times]
    ratio = statistics.median(ratios)
    for command, values in zip((a, b), zip(*times, strict=True), strict=True):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{command.title:<44} {middle:7.2f} s   ({low:.2f} to {high:.2f})")
    verdict = "met" if ratio <= wanted else "MISSED"
    print(
        f"{'ratio, median of ' + str(pairs) + ' pairs':<44} {ratio:7.3f}     "
        f"({min(ratios):.3f} to {max(ratios):.3f}); wanted at most {wanted}: {verdict}\n"
    )
    return ratio <= wanted


def machine() -> str:
    """Return Python version, number of cores and architecture of this machine."""
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
