"""Find, create and tag experiments, and choose the columns that MLflow's UI shows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from registry_tools.mlflow_store.client import (
    Page,
    fetch_page,
    fetch_pages,
    if_exists,
    translate_errors,
    upsert,
)

# Without this tag MLflow's UI opens an experiment in its view for generative AI.
TRAINING: dict[str, str] = {"mlflow.experimentKind": "custom_model_development"}


def described(description: str) -> dict[str, str]:
    """Return the tags of an experiment that opens in the training view, with a description."""
    return TRAINING | {MLFLOW_RUN_NOTE: description}  # the same tag describes runs and experiments


def view(name: str, order_by: str, columns: Sequence[str], ascending: bool = False) -> dict[str, str]:
    """Return the tag for a view, which MLflow's UI opens with `viewStateShareKey=NAME` in its address.

    Parameters
    ----------
    name
        The name of the view.
    order_by
        The column to sort the runs by.
    columns
        The columns to show, such as ``metrics.`accuracy` ``.
    ascending
        Whether the smallest value comes first.
    """
    state = {"orderByKey": order_by, "orderByAsc": ascending, "selectedColumns": list(columns)}
    return {f"mlflow.sharedViewState.{name}": json.dumps(state)}


def find_or_make(client: MlflowClient, name: str, tags: Mapping[str, str]) -> str:
    """Return the id of an experiment, which is created with the tags if it is missing."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, tags=dict(tags))
        except MlflowException:  # perhaps another client created it in the meantime
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


def set_ui_tags(
    client: MlflowClient, experiment_id: str, tags: Mapping[str, str], view: Mapping[str, str]
) -> None:
    """Set the tags that an experiment lacks, such as its description, and its view, even if it has one."""
    known = get_tags(client, experiment_id)
    for key, text in {**tags, **known, **view}.items():
        if known.get(key) != text:
            set_tag(client, experiment_id, key, text)


def find_runs(
    client: MlflowClient, experiment_id: str, condition: str, limit: int | None = None
) -> list[Run]:
    """Return runs of an experiment, newest first; `limit` None returns all."""
    search = partial(client.search_runs, [experiment_id], condition, order_by=["attributes.start_time DESC"])
    with translate_errors(client.tracking_uri):
        return fetch_pages(search, limit, 1000)


def runs_page(
    client: MlflowClient, experiment_id: str, condition: str, size: int, token: str | None
) -> Page[Run]:
    """Return one page of the runs of an experiment, newest first."""
    search = partial(client.search_runs, [experiment_id], condition, order_by=["attributes.start_time DESC"])
    return fetch_page(client, search, size, token)


def find(client: MlflowClient, name: str) -> Experiment | None:
    """Return an experiment by name, even if it is deleted; None if it does not exist."""
    with translate_errors(client.tracking_uri):
        return client.get_experiment_by_name(name)


def make_with_root(client: MlflowClient, name: str, tags: Mapping[str, str], root_tag: str) -> None:
    """Create an experiment with a root run, and store the id of the run in a tag of the experiment.

    The experiment gets its name in the last step. MLflow accepts a name once, so only one of several
    clients that do this at the same time succeeds.
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
    """Add a root run to an experiment, store its id in a tag of the experiment, and return the id."""
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
    """Set a tag of an experiment."""
    with translate_errors(client.tracking_uri):
        upsert(lambda: client.set_experiment_tag(experiment_id, key, value))


def delete_tag(client: MlflowClient, experiment_id: str, key: str) -> None:
    """Delete a tag of an experiment, if it exists."""
    if_exists(client, client.delete_experiment_tag, experiment_id, key)
