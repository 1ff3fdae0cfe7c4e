"""Normalise the output of commands, so that it can be compared with documents."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Replace run ids and times, which differ between runs, and remove spaces at line ends."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "<run>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", "<time>", text)
    text = re.sub(r"Makefile:\d+", "Makefile", text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
