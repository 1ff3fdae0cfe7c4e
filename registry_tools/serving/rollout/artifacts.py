"""Make the artifact fetcher that the server's settings describe."""

from __future__ import annotations

from pathlib import Path

from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.refs import parse_ref
from registry_tools.serving.settings import Settings


def artifact_fetcher_for(settings: Settings) -> ArtifactFetcher:
    """Return a fetcher for the reference that the server follows."""
    cache = Path(settings.cache) if settings.cache else None
    return ArtifactFetcher(parse_ref(settings.ref), settings.policy, settings.tracking_uri, cache)
