"""The user that sent the request which the server is answering."""

from __future__ import annotations

import flask


def authenticated_user() -> str | None:
    """Return the user that MLflow's basic-auth app authenticated; None without that app."""
    return flask.g.get("mlflow_authenticated_user") if flask.has_request_context() else None
