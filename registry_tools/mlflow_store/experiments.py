"""Experiments, made by the first client, and the columns that the UI shows of their runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from registry_tools.mlflow_store.client import fetch_pages, is_missing, translate_errors, upsert

# Without it MLflow's UI opens an experiment as one of generative AI.
TRAINING: dict[str, str] = {"mlflow.experimentKind": "custom_model_development"}


def described(description: str) -> dict[str, str]:
    """Return the tags of an experiment that opens in the training view, with a description."""
    return TRAINING | {MLFLOW_RUN_NOTE: description}  # the same tag describes runs and experiments


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
    with translate_errors(client.tracking_uri):
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


def find(client: MlflowClient, name: str) -> Experiment | None:
    """Return an experiment by name, a deleted one as well; None if there is none."""
    with translate_errors(client.tracking_uri):
        return client.get_experiment_by_name(name)


def make_with_root(client: MlflowClient, name: str, tags: Mapping[str, str], root_tag: str) -> None:
    """Make an experiment that has one run from the start; a tag of the experiment has its id.

    The experiment gets its name last: MLflow takes a name once, so that of several clients that do
    this at the same time, one makes it.
    """
    with translate_errors(client.tracking_uri):
        made = client.create_experiment(f"{name}-{uuid.uuid4().hex[:12]}", tags=dict(tags))
        add_root(client, made, root_tag)
        try:
            client.rename_experiment(made, name)
        except MlflowException:
            client.delete_experiment(made)
            if client.get_experiment_by_name(name) is None:
                raise


def add_root(client: MlflowClient, experiment_id: str, root_tag: str) -> str:
    """Add a run to an experiment, write its id into a tag of the experiment, and return it."""
    with translate_errors(client.tracking_uri):
        root = client.create_run(experiment_id, tags={"mlflow.runName": "history begins", "kind": root_tag})
        client.set_terminated(root.info.run_id)
        client.set_experiment_tag(experiment_id, root_tag, root.info.run_id)
    return str(root.info.run_id)


def get_tags(client: MlflowClient, experiment_id: str) -> dict[str, str]:
    """Return the tags of an experiment."""
    with translate_errors(client.tracking_uri):
        return dict(client.get_experiment(experiment_id).tags)


def set_tag(client: MlflowClient, experiment_id: str, key: str, value: str) -> None:
    """Write a tag of an experiment."""
    with translate_errors(client.tracking_uri):
        upsert(lambda: client.set_experiment_tag(experiment_id, key, value))


def delete_tag(client: MlflowClient, experiment_id: str, key: str) -> None:
    """Remove a tag of an experiment, unless it was removed already."""
    with translate_errors(client.tracking_uri):
        try:
            client.delete_experiment_tag(experiment_id, key)
        except MlflowException as error:
            if not is_missing(error):
                raise
