"""Read a registry: its models, their versions, and the history of their stages."""

from __future__ import annotations

from registry_tools.api.tables import History, ModelList, RegisteredVersion, VersionList
from registry_tools.mlflow_store import registered_models, registry
from registry_tools.mlflow_store.client import connect
from registry_tools.promotion import history as event_history
from registry_tools.refs import model_name, parse_ref, stage_name


def list_models(*, limit: int | None = None, tracking_uri: str | None = None) -> ModelList:
    """List the registered models with the version in each of their stages, by name.

    Parameters
    ----------
    limit
        The most models to return; None returns all.
    tracking_uri
        The registry. None takes MLflow's own, by MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI.

    Returns
    -------
    ModelList
        A sequence of `RegisteredModelInfo`.

    Raises
    ------
    RegistryUnavailable, AccessDenied
        If the registry does not respond, does not exist, or refuses you.

    Examples
    --------
    >>> from registry_tools import list_models
    >>> [(model.name, model.stages) for model in list_models()]  # doctest: +SKIP
    [('iris', {'production': 2, 'staging': 3})]
    """
    return ModelList(tuple(registered_models.list_models(connect(tracking_uri))[:limit]))


def list_versions(name: str, *, limit: int | None = None, tracking_uri: str | None = None) -> VersionList:
    """List the versions of a registered model, newest first.

    Parameters
    ----------
    name
        The registered model.
    limit
        The most versions to return; None returns all.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    VersionList
        A sequence of `RegisteredVersion`: stages, run, digest, metrics, parameters, tags and the
        last event of each version.

    Raises
    ------
    NotFound
        If there is no such model.
    InvalidReference, RegistryUnavailable, AccessDenied
        If the name is not valid, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import list_versions
    >>> versions = list_versions("iris")  # doctest: +SKIP
    >>> versions.to_pandas()[["version", "stages", "metrics.accuracy"]]  # doctest: +SKIP
       version        stages  metrics.accuracy
    0        2  [production]          1.000000
    1        1            []          0.966667
    """
    model, client = model_name(name), connect(tracking_uri)
    versions = registry.list_versions(client, model, limit=limit)
    events = event_history.last_events(client, model, [version.version for version in versions])
    rows = (RegisteredVersion(**vars(each), last_event=events.get(each.version)) for each in versions)
    return VersionList(tuple(rows))


def get_version(ref: str, *, tracking_uri: str | None = None) -> RegisteredVersion:
    """Return the version that a reference means now.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3` or `iris/Production`.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    RegisteredVersion
        Stages, run, digest, metrics, parameters, tags, and the last event: for a reference by
        stage, the event that moved the stage to the version.

    Raises
    ------
    NotFound
        If the model, the version or the stage does not exist.
    InvalidReference, RegistryUnavailable, AccessDenied
        If the reference is not valid, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import get_version
    >>> get_version("iris@production").metrics["accuracy"]  # doctest: +SKIP
    1.0
    """
    model_ref, client = parse_ref(ref), connect(tracking_uri)
    version = registry.get_version(client, model_ref)
    event = None
    if model_ref.stage is not None:  # the event that put it there, rather than one that was refused
        event = event_history.stage_entry(client, version.name, model_ref.stage)
    if event is None or event.version != version.version:
        event = event_history.last_event(client, version.name, version.version)
    return RegisteredVersion(**vars(version), last_event=event)


def history(
    name: str, *, stage: str | None = None, limit: int | None = None, tracking_uri: str | None = None
) -> History:
    """Return the events on the stages of a registered model, newest first.

    Parameters
    ----------
    name
        The registered model.
    stage
        Return only the events on this stage; None returns those on all stages.
    limit
        The most events to return; None returns all.
    tracking_uri
        The registry; None takes MLflow's own.

    Returns
    -------
    History
        A sequence of `Event`: promotions, rollbacks, refusals, registrations, and moves by other
        tools. `inconsistencies` names the stages that another tool moved since the last event.

    Raises
    ------
    NotFound
        If there is no such model.
    BrokenHistory
        If an event was deleted, or changed after it was recorded.
    InvalidReference, RegistryUnavailable, AccessDenied
        If a name is not valid, or the registry does not respond or refuses you.

    Examples
    --------
    >>> from registry_tools import history
    >>> history("iris", stage="production")[0].title  # doctest: +SKIP
    'rollback 1 → production'
    >>> history("iris").to_pandas()[["at", "action", "version"]]  # doctest: +SKIP
                                    at    action  version
    0 2026-11-27 10:50:42.123000+00:00  rollback        1
    1 2026-11-27 10:50:35.456000+00:00   promote        2
    """
    model, where = model_name(name), stage_name(stage) if stage is not None else None
    client = connect(tracking_uri)
    held = registered_models.stages_of(registered_models.get_registered_model(client, model))
    events = event_history.list_events(client, model, stage=where, limit=limit)
    inconsistent = event_history.inconsistencies(client, model, held)
    return History(tuple(events), model, held, tuple(inconsistent))
