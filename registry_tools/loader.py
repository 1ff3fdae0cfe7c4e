"""From a model reference to a model that answers: resolved, fetched, verified, loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry_tools import integrity, registry
from registry_tools.errors import VerificationError
from registry_tools.formats import LoadedModel, TrustPolicy, load_folder
from registry_tools.refs import ModelRef, parse_ref
from registry_tools.registry import VersionInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient


def load_model(
    ref: str,
    stage: str | None = None,
    *,
    tracking_uri: str | None = None,
    trust: Sequence[str] = (),
    allow_code: bool = False,
) -> LoadedModel:
    """Load a version of a registered model: its files are verified first, then its types.

    Parameters
    ----------
    ref
        `iris@production`, `iris/3`, `iris/Production`, or the name alone with `stage`.
    stage
        The stage, when `ref` is a name.
    tracking_uri
        The registry; None takes what MLflow itself takes.
    trust
        Types that a model may contain beyond `integrity.TRUSTED_TYPES` and REGISTRY_TOOLS_TRUST.
    allow_code
        Also load formats that run code of their own while they load.

    Raises
    ------
    InvalidReference, NotFound, RegistryUnavailable, AccessDenied
        If the reference means nothing, or the registry cannot say what it means.
    VerificationError
        If the files are not those that were registered, or contain what is not trusted.
    """
    settings = TrustPolicy.from_environment()
    policy = TrustPolicy((*settings.types, *trust), allow_code)
    return load(registry.connect(tracking_uri), parse_ref(ref, stage=stage), policy)


def load(client: MlflowClient, ref: ModelRef, policy: TrustPolicy | None = None) -> LoadedModel:
    """Load what a reference means now, as `load_model`, from a client's registry."""
    version = registry.find_version(client, ref)
    with verified_files(client, version) as folder:
        return load_folder(folder, policy or TrustPolicy.from_environment(), version, ref.stage)


@contextlib.contextmanager
def verified_files(client: MlflowClient, version: VersionInfo) -> Iterator[Path]:
    """Yield a folder with a version's files, compared with the digest that it carries.

    Raises
    ------
    VerificationError
        If a file differs; the message names it.
    """
    with registry.model_files(client, version.name, version.version) as folder:
        if version.digest is not None:
            try:
                integrity.check_files(folder, version.digest)
            except VerificationError:
                # The manifest is fetched only now: it is needed to name the file.
                integrity.check_files(folder, version.digest, registry.manifest(client, version))
                raise
        yield folder
