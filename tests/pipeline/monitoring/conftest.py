"""Fixtures that all tests of monitoring share."""

from tests.support.monitored import drawn, fewer_figures, passing

__all__ = ["drawn", "fewer_figures", "passing"]
