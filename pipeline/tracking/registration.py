"""Register a stored model as a version, and set its stage."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient

from pipeline.errors import RegistrationError
from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store import registry
from registry_tools.models.manifest import VersionManifest, digest_of
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.promotion.promote import register


def register_version(
    model_id: str,
    manifest: VersionManifest,
    *,
    name: str,
    stage: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> int:
    """Register a stored model as a version, set its stage, and return the version number.

    All tags are written in one call. The history of the model records the move of the stage.

    Parameters
    ----------
    model_id
        The stored model.
    manifest
        The files of the model and of its evidence; their digests become tags.
    name
        The registered model; it is created if it does not exist.
    stage
        The stage to move to the version.
    run_id
        The run that trained the model.
    tags, description
        Tags and description of the version.

    Raises
    ------
    RegistrationError
        If the registry refuses the move. The version stays registered, and the stage keeps its version.
    """
    client = MlflowClient()
    digests = {DIGEST_TAG: digest_of(manifest.model), EVIDENCE_DIGEST_TAG: digest_of(manifest.evidence)}
    version = registry.register(
        client,
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        description=description,
        tags={**tags, **digests},
    )
    try:
        register(client, name, version, stage)
    except RegistryToolsError as error:
        raise RegistrationError(
            f"{name} version {version} is registered, but stage {stage} was not set: {error}"
        ) from error
    return version


def registered_version(run_id: str) -> int | None:
    """Return the version that a run registered; None if there is none."""
    found = MlflowClient().search_model_versions(f"run_id = '{run_id}'", max_results=1)
    return int(found[0].version) if found else None
