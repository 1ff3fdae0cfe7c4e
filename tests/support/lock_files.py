"""Read the pinned versions of the lock files."""

from __future__ import annotations

from packaging.requirements import Requirement

from tests.support.constants import ROOT


def pins(lock: str) -> list[Requirement]:
    """Return the pins of a lock file, with their markers."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [Requirement(line.partition(" --hash")[0].strip()) for line in lines]
