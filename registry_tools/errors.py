"""Everything that registry_tools raises on purpose.

RegistryToolsError             exit 1
├── InvalidReference           exit 2: text that cannot be a model reference or a stage name
├── NotFound                   no such model, version or stage; the message names the existing ones
├── RegistryUnavailable        the registry did not respond, or does not exist
├── AccessDenied               the registry refused this to the user
├── BrokenHistory              an event of a stage's history was deleted or changed
├── VerificationError          the files differ from the registered version
├── PromotionError             a promotion or rollback that cannot be done; nothing was moved
│   ├── GateRefused            exit 3: a gate refused a promotion
│   └── StageMoved             the stage does not hold the expected version
├── InputError                 rows that the model cannot take; names row, column and value
│   └── InputTooLarge          rows that would take more memory than a request may
└── UnsupportedOperation       an operation that this model or flavor lacks

Each message is one line: the fault, the value, and the fix.
"""

from __future__ import annotations

from typing import Any


class RegistryToolsError(Exception):
    """Base of all errors of this package; its text is written for the person who reads it."""

    exit_code = 1


class InvalidReference(RegistryToolsError, ValueError):
    """A text that cannot be a model reference or a stage name."""

    exit_code = 2


class NotFound(RegistryToolsError, LookupError):
    """A model, version or stage that the registry does not have."""


class RegistryUnavailable(RegistryToolsError, ConnectionError):
    """The registry did not respond, or there is none at that address."""


class AccessDenied(RegistryToolsError):
    """The registry refused this to the user."""


class BrokenHistory(RegistryToolsError):
    """An event of a stage's history was deleted, or changed after it was recorded."""

    def __init__(self, message: str, can_be_restored: bool = False) -> None:
        super().__init__(message)
        self.can_be_restored = can_be_restored


class VerificationError(RegistryToolsError):
    """The files of a version are not those that were registered."""


class PromotionError(RegistryToolsError):
    """A promotion or rollback that cannot be done; nothing was moved."""


class GateRefused(PromotionError):
    """A gate refused a promotion; `promotion`, a `promote.Promotion`, has the verdict."""

    exit_code = 3

    def __init__(self, message: str, promotion: Any) -> None:
        super().__init__(message)
        self.promotion = promotion


class StageMoved(PromotionError):
    """The stage does not hold the expected version."""


class InputError(RegistryToolsError, ValueError):
    """Rows that the model cannot take; `public` says so without a value that stands in them."""

    def __init__(self, message: str, public: str | None = None) -> None:
        super().__init__(message)
        self.public = public or message


class InputTooLarge(InputError):
    """Rows that would take more memory than one request may; HTTP status 413."""


class UnsupportedOperation(RegistryToolsError):
    """Something that this model, flavor or format cannot do."""


def first_line(error: BaseException | str, limit: int | None = None) -> str:
    """Return the first line of an error's text, or its type where the text is empty.

    Parameters
    ----------
    error
        An exception, a warning or its text.
    limit
        The most characters to return; None returns the whole line.
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def last_line(text: str, otherwise: str) -> str:
    """Return the last line of an output, or another text where the output is empty."""
    return (text.strip().splitlines() or [otherwise])[-1]


def error_summary(error: BaseException, limit: int | None = None) -> str:
    """Return the type and the text of an error in one line.

    Parameters
    ----------
    error
        Any exception.
    limit
        The most characters to return; None returns the whole text.
    """
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit]
