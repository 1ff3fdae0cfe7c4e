"""The address of the tracking store."""

from __future__ import annotations

import mlflow


def address() -> str:
    """Return the tracking URI of the store in which the pipeline logs its runs."""
    return mlflow.get_tracking_uri()
