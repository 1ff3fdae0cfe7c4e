"""Experiments, made by whoever comes first, and what the UI is to show of their runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from registry_tools.mlflow_store.client import fetch_pages

# Without it MLflow's UI opens an experiment as one of generative AI.
TRAINING: dict[str, str] = {"mlflow.experimentKind": "custom_model_development"}


def view(name: str, order_by: str, columns: Sequence[str]) -> dict[str, str]:
    """Return the tag of a view that MLflow's UI opens with `viewStateShareKey=NAME` in an address.

    Parameters
    ----------
    name
        Of the view.
    order_by
        The column by which runs are sorted, the largest first.
    columns
        Those that are shown, such as ``metrics.`accuracy` ``.
    """
    state = {"orderByKey": order_by, "orderByAsc": False, "selectedColumns": list(columns)}
    return {f"mlflow.sharedViewState.{name}": json.dumps(state)}


def find_or_make(client: MlflowClient, name: str, tags: Mapping[str, str]) -> tuple[Experiment, bool]:
    """Return an experiment, and whether it was made here; the tags are those of a new one."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found, False
    try:
        made = client.create_experiment(name, tags=dict(tags))
    except MlflowException:
        # Another made it in the meantime.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found, False
    return client.get_experiment(made), True


def find_runs(
    client: MlflowClient, experiment_id: str, condition: str, limit: int | None = None
) -> list[Run]:
    """Return runs of an experiment, newest first; `limit` of them at most, None for all."""
    return fetch_pages(
        lambda most, token: client.search_runs(
            [experiment_id],
            condition,
            max_results=most,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        ),
        limit,
        1000,
    )
