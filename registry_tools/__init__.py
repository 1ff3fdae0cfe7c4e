"""Named stages over MLflow's model registry: load, inspect and move versions.

Importing it is free: what needs MLflow is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_tools.errors import RegistryToolsError

if TYPE_CHECKING:
    from registry_tools.loader import LoadedModel, load_model

__all__ = ["LoadedModel", "RegistryToolsError", "load_model"]


def __getattr__(name: str) -> Any:
    if name in {"LoadedModel", "load_model"}:
        from registry_tools import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
