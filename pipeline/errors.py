"""Everything that the pipeline raises on purpose.

PipelineError                  exit 1
├── InvalidParameter           exit 2: a parameter out of its bounds; names parameter, value, bounds
├── DataError                  exit 1: a table that cannot be trained on
├── Interrupted                exit 130: by Ctrl-C, with what is kept of it
├── UntrustedType              exit 1: a model that nobody could load
└── RegistrationError          exit 1: trained and registered, but the stage could not be set

Each message is one line: the fault, the value, and the fix.
"""

from __future__ import annotations

from collections.abc import Collection


class PipelineError(Exception):
    """Base of all errors of this package; its text is written for the person who reads it."""

    exit_code = 1


class InvalidParameter(PipelineError, ValueError):
    """A parameter out of its bounds."""

    exit_code = 2

    def __init__(self, name: str, value: object, bounds: str) -> None:
        super().__init__(f"{name}={value}: {bounds}")
        self.name = name


class DataError(PipelineError, ValueError):
    """A table that cannot be trained on."""


class Interrupted(PipelineError):
    """A step that was ended by Ctrl-C; the message says what is kept."""

    exit_code = 130


class UntrustedType(PipelineError):
    """A model that holds types which are not trusted when it is loaded."""

    def __init__(self, types: Collection[str]) -> None:
        names = ",".join(sorted(types))
        super().__init__(
            f"such a model holds {names}, which is not among the types that are trusted when a "
            f"model is loaded: if you know it, set REGISTRY_TOOLS_TRUST={names} here and where "
            "it is loaded"
        )


class RegistrationError(PipelineError):
    """A version that was registered, but is not in the stage that was asked for."""
