"""Everything that the pipeline raises on purpose.

PipelineError                  exit 1
├── InvalidParameter           exit 2: a parameter out of its bounds; names parameter, value, bounds
├── DataError                  exit 1: a table that cannot be trained on
└── RegistrationError          exit 1: trained and registered, but the stage could not be set

Each message is one line: what is wrong, with which value, and what to do next.
"""

from __future__ import annotations


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


class RegistrationError(PipelineError):
    """A version that was registered, but is not in the stage that was asked for."""
