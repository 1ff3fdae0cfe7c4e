"""Calls in a process of their own."""

from __future__ import annotations

import math
import multiprocessing
import os
import time

import pytest

from registry_tools.processes import call_in_process


def test_a_call_in_a_process_returns_its_result() -> None:
    assert call_in_process(math.sqrt, 4.0, math.inf) == 2.0


def test_a_call_that_takes_too_long_is_killed() -> None:
    with pytest.raises(TimeoutError, match=r"took longer than 0\.2 s"):
        call_in_process(time.sleep, 600, 0.2)
    assert multiprocessing.active_children() == []


def test_a_call_whose_process_is_ended_says_so() -> None:
    with pytest.raises(ChildProcessError, match="ended from outside"):
        call_in_process(os._exit, 1, math.inf)
