"""Named stages over MLflow's model registry: load, inspect and move versions.

Importing it is free: what needs MLflow is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_tools.errors import RegistryToolsError

if TYPE_CHECKING:
    from registry_tools.models.loaded_model import LoadedModel
    from registry_tools.models.loader import load_model

__all__ = ["LoadedModel", "RegistryToolsError", "load_model"]


def __getattr__(name: str) -> Any:
    if name == "LoadedModel":
        from registry_tools.models import loaded_model

        return loaded_model.LoadedModel
    if name == "load_model":
        from registry_tools.models import loader

        return loader.load_model
    if name == "__version__":
        from importlib.metadata import version

        return version("registry-pipeline")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
