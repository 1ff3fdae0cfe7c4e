"""Named stages over MLflow's model registry: load, promote, compare and copy model versions.

Each name is imported when you first use it: `import registry_tools` loads neither MLflow nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from registry_tools.errors import (
    AccessDenied,
    BrokenHistory,
    GateRefused,
    InputError,
    InputTooLarge,
    InvalidReference,
    MoveRefused,
    NotFound,
    PolicyError,
    PromotionError,
    RegistryToolsError,
    RegistryUnavailable,
    StageMoved,
    UnsupportedOperation,
    VerificationError,
)

if TYPE_CHECKING:  # for type checkers and documentation; `_MODULES` says the same
    from registry_tools.api.approvals import approve, list_requests, reject, request
    from registry_tools.api.evidence import evaluate
    from registry_tools.api.listing import get_version, history, list_models, list_versions
    from registry_tools.api.scoring import score
    from registry_tools.api.stages import promote, rollback, unset
    from registry_tools.api.tables import History, ModelList, RegisteredVersion, VersionList
    from registry_tools.api.versions import adopt, compare, copy, register, verify
    from registry_tools.batch.job import ScoringSummary
    from registry_tools.evaluation.adopt import Adoption
    from registry_tools.evaluation.comparison import Comparison
    from registry_tools.evaluation.registration import Registration
    from registry_tools.evaluation.verdict import GateResult, Verdict
    from registry_tools.mlflow_store.registered_models import RegisteredModelInfo
    from registry_tools.mlflow_store.registry import VersionInfo
    from registry_tools.models.copy import CopiedVersion
    from registry_tools.models.explanation.contributions import Explanation
    from registry_tools.models.loaded_model import LoadedModel, ModelInfo
    from registry_tools.models.loader import load_model
    from registry_tools.policy.records import Approval, Request
    from registry_tools.promotion.approvals import PendingRequest
    from registry_tools.promotion.event import Event
    from registry_tools.promotion.promote import Promotion
    from registry_tools.promotion.signed_verdict import SignedVerdict

_MODULES = {
    "api.approvals": ("approve", "list_requests", "reject", "request"),
    "api.evidence": ("evaluate",),
    "api.listing": ("get_version", "history", "list_models", "list_versions"),
    "api.scoring": ("score",),
    "api.stages": ("promote", "rollback", "unset"),
    "api.tables": ("History", "ModelList", "RegisteredVersion", "VersionList"),
    "api.versions": ("adopt", "compare", "copy", "register", "verify"),
    "batch.job": ("ScoringSummary",),
    "evaluation.adopt": ("Adoption",),
    "evaluation.comparison": ("Comparison",),
    "evaluation.registration": ("Registration",),
    "evaluation.verdict": ("GateResult", "Verdict"),
    "mlflow_store.registered_models": ("RegisteredModelInfo",),
    "mlflow_store.registry": ("VersionInfo",),
    "models.copy": ("CopiedVersion",),
    "models.explanation.contributions": ("Explanation",),
    "models.loaded_model": ("LoadedModel", "ModelInfo"),
    "models.loader": ("load_model",),
    "policy.records": ("Approval", "Request"),
    "promotion.approvals": ("PendingRequest",),
    "promotion.event": ("Event",),
    "promotion.promote": ("Promotion",),
    "promotion.signed_verdict": ("SignedVerdict",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AccessDenied",
    "Adoption",
    "Approval",
    "BrokenHistory",
    "Comparison",
    "CopiedVersion",
    "Event",
    "Explanation",
    "GateRefused",
    "GateResult",
    "History",
    "InputError",
    "InputTooLarge",
    "InvalidReference",
    "LoadedModel",
    "ModelInfo",
    "ModelList",
    "MoveRefused",
    "NotFound",
    "PendingRequest",
    "PolicyError",
    "Promotion",
    "PromotionError",
    "RegisteredModelInfo",
    "RegisteredVersion",
    "Registration",
    "RegistryToolsError",
    "RegistryUnavailable",
    "Request",
    "ScoringSummary",
    "SignedVerdict",
    "StageMoved",
    "UnsupportedOperation",
    "Verdict",
    "VerificationError",
    "VersionInfo",
    "VersionList",
    "adopt",
    "approve",
    "compare",
    "copy",
    "evaluate",
    "get_version",
    "history",
    "list_models",
    "list_requests",
    "list_versions",
    "load_model",
    "promote",
    "register",
    "reject",
    "request",
    "rollback",
    "score",
    "unset",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"registry_tools.{_MODULE_OF[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("registry-pipeline")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
