"""The tracking store of the pipeline's runs."""

from __future__ import annotations

import mlflow


def address() -> str:
    """Return the address of the store that runs go to."""
    return mlflow.get_tracking_uri()
