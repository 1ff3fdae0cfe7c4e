"""Fixtures of all monitoring tests."""

from tests.support.monitored import drawn, fewer_figures, passing

__all__ = ["drawn", "fewer_figures", "passing"]
