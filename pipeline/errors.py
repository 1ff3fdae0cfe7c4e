"""The errors that the pipeline raises, as a hierarchy with their exit codes.

PipelineError                  exit 1
├── InvalidParameter           exit 2: a parameter is out of bounds; names parameter, value, bounds
├── DataError                  exit 1: a table cannot be used for training or monitoring
├── Interrupted                exit 130: Ctrl-C; the message says which results are kept
├── UntrustedType              exit 1: the model has a type that the loader does not trust
└── RegistrationError          exit 1: the version is registered, but its stage could not be set

Each message is one line with the fault, the value and the fix.
"""

from __future__ import annotations

from collections.abc import Collection


class PipelineError(Exception):
    """Base class of all errors of this package; the command line prints the message on one line."""

    exit_code = 1


class InvalidParameter(PipelineError, ValueError):
    """A parameter is out of bounds, or contradicts another parameter."""

    exit_code = 2

    def __init__(self, name: str, value: object, bounds: str) -> None:
        super().__init__(f"{name}={value}: {bounds}")
        self.name = name


class DataError(PipelineError, ValueError):
    """A table cannot be used for training or monitoring."""


class Interrupted(PipelineError):
    """The user pressed Ctrl-C; the message says which results are kept."""

    exit_code = 130


class UntrustedType(PipelineError):
    """A trained model has types that the loader does not trust, so it could not be loaded."""

    def __init__(self, types: Collection[str]) -> None:
        names = ",".join(sorted(types))
        super().__init__(
            f"the model has types that are not trusted when a model is loaded, {names}: if you trust "
            f"them, set REGISTRY_TOOLS_TRUST={names} for the training and for every process that loads it"
        )


class RegistrationError(PipelineError):
    """A version was registered, but its stage could not be set."""
