"""The exceptions of registry_tools, as a tree with their exit codes.

RegistryToolsError             exit 1
├── InvalidReference           exit 2: text that is not a valid model reference or stage name
├── NotFound                   no such model, version or stage; the message names the existing ones
├── RegistryUnavailable        the registry did not respond, or does not exist
├── AccessDenied               the user lacks a permission in the registry
├── BrokenHistory              an event of a stage's history was deleted or changed
├── VerificationError          the files differ from the registered version, or a signed text is not valid
├── PolicyError                the policy of the registry is missing or invalid
├── PromotionError             a promotion or rollback that cannot be done; nothing was moved
│   ├── GateRefused            exit 3: a gate refused a promotion
│   ├── MoveRefused            exit 3: the policy of the registry does not allow the move of a stage
│   └── StageMoved             the stage does not hold the expected version
├── InputError                 rows that do not fit the model; names row, column and value
│   └── InputTooLarge          rows over the memory limit of one request
└── UnsupportedOperation       an operation that this model or flavor does not support

Each message is one line that states the fault, the value and the fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RegistryToolsError(Exception):
    """Base class of all errors of this package; the message is one line for the user."""

    exit_code = 1


class InvalidReference(RegistryToolsError, ValueError):
    """A text that is not a valid model reference or stage name."""

    exit_code = 2


class NotFound(RegistryToolsError, LookupError):
    """A model, version or stage that the registry does not have."""


class RegistryUnavailable(RegistryToolsError, ConnectionError):
    """The registry did not respond, or does not exist."""


class AccessDenied(RegistryToolsError):
    """The user lacks a permission in the registry."""


class BrokenHistory(RegistryToolsError):
    """An event of a stage's history was deleted, or changed after it was recorded."""

    def __init__(self, message: str, can_be_restored: bool = False) -> None:
        super().__init__(message)
        self.can_be_restored = can_be_restored


class VerificationError(RegistryToolsError):
    """The files of a version differ from the registered ones, or a signed text is not valid."""


class PolicyError(RegistryToolsError):
    """The policy of the registry is missing or invalid; `problems` has one line for each fault."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class PromotionError(RegistryToolsError):
    """A promotion or rollback that cannot be done; nothing was moved."""


class GateRefused(PromotionError):
    """A gate refused; `promotion` is a `Promotion` or a `SignedVerdict` with the verdict."""

    exit_code = 3

    def __init__(self, message: str, promotion: Any) -> None:
        super().__init__(message)
        self.promotion = promotion


class MoveRefused(PromotionError):
    """The policy of the registry does not allow the move of a stage; the stage was not moved."""

    exit_code = 3
    prefix = "stage refused: "  # of the message with which a gated registry refuses a request


class StageMoved(PromotionError):
    """The stage does not hold the expected version."""


class InputError(RegistryToolsError, ValueError):
    """Rows that do not fit the model; `public` is the message without input values."""

    def __init__(self, message: str, public: str | None = None) -> None:
        super().__init__(message)
        self.public = public or message


class InputTooLarge(InputError):
    """Rows over the memory limit of one request; HTTP status 413."""


class UnsupportedOperation(RegistryToolsError):
    """An operation that this model, flavor or format does not support."""


def first_line(error: BaseException | str, limit: int | None = None) -> str:
    """Return the first line of an error's text, or its type if the text is empty.

    Parameters
    ----------
    error
        An exception, a warning or its text.
    limit
        The largest number of characters to return; None returns the whole line.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def last_line(text: str, otherwise: str) -> str:
    """Return the last line of a text, or `otherwise` if the text is empty."""
    return (text.strip().splitlines() or [otherwise])[-1]


def error_summary(error: BaseException, limit: int | None = None) -> str:
    """Return the type and the text of an error in one line.

    Parameters
    ----------
    error
        Any exception.
    limit
        The largest number of characters to return; None returns the whole text.
    """
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit]
