"""Holm's correction: the worked example, and the bounds."""

from __future__ import annotations

import pytest

from registry_tools.stats.multiple_testing import holm


def test_holm_corrects_as_in_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_an_adjusted_p_value_is_never_above_one() -> None:
    assert holm([0.9, 0.4]) == [0.9, 0.8]
    assert holm([0.9, 0.9]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
