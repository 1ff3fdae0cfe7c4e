"""Parse and check model references such as `iris@production`, and stage names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry_tools.errors import InvalidReference

# The two stages that MLflow's deprecated `current_stage` can mirror.
LEGACY_STAGES = {"staging": "Staging", "production": "Production"}

_STAGE = re.compile(r"[\w-]+", re.ASCII)
_VERSION = re.compile(r"[0-9]+")
# MLflow reserves `latest` and v1, v2, …; `none` and `archived` are legacy words for "no stage".
_RESERVED = re.compile(r"latest|none|archived|v?[0-9]+")
_LONGEST = 200  # characters; MLflow stores 250, and other names are derived from these


@dataclass(frozen=True)
class ModelRef:
    """A reference to one version or one stage of a registered model."""

    name: str
    version: int | None = None
    stage: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}" if self.stage is None else f"{self.name}@{self.stage}"


def stage_name(text: str) -> str:
    """Return a stage name as it is stored: as an MLflow alias in lower case.

    Raises
    ------
    InvalidReference
        If the text is not a legal MLflow alias, or a word that MLflow reserves.
    """
    name = text.strip().lower()
    if not _STAGE.fullmatch(name):
        raise InvalidReference(
            f"stage {text!r} is not a legal alias: use letters, digits, '-' and '_', "
            "such as staging or production"
        )
    if len(name) > _LONGEST:
        raise InvalidReference(f"stage {text[:20]}… is longer than {_LONGEST} characters")
    if _RESERVED.fullmatch(name):
        raise InvalidReference(
            f"stage {text!r} is a word that MLflow reserves: choose another, such as staging"
        )
    return name


def model_name(text: str) -> str:
    """Check the name of a registered model, and return it.

    Raises
    ------
    InvalidReference
        If it is empty or too long, or contains a character that has a meaning in MLflow or in a
        reference.
    """
    if (
        not text.strip()
        or text != text.strip()
        or any(c in '/:@"' or not c.isprintable() for c in text)
        or text in {".", ".."}
        or len(text) > _LONGEST
    ):
        raise InvalidReference(
            f"model name {text[:40]!r} is not usable: it must not be empty, begin or end with a "
            f"space, be longer than {_LONGEST} characters, be '.' or '..', or contain one of /:@\""
        )
    return text


def parse_ref(text: str, *, stage: str | None = None) -> ModelRef:
    """Read `iris@production`, `iris/3` or `iris/Production`, each with or without `models:/`.

    Parameters
    ----------
    text
        The reference, or only the name of the model if `stage` is given.
    stage
        A stage, for the call `load_model("iris", stage="production")`.

    Raises
    ------
    InvalidReference
        If the text has none of these forms; the message shows them.
    """
    body = text.removeprefix("models:/").lstrip("/")
    if stage is not None:
        if any(c in body for c in "@/"):
            raise InvalidReference(
                f"{text!r} already names a version or a stage: leave out stage={stage!r}, "
                "or give the name alone"
            )
        return ModelRef(model_name(body), stage=stage_name(stage))
    separator = "@" if "@" in body else "/"
    name, found, target = body.rpartition(separator)
    if not found or not target:
        fault = f"{text!r} names no version and no stage" if body else "an empty model reference"
        example = name or target or "iris"
        raise InvalidReference(f"{fault}: write {example}@production, {example}/3 or {example}/Production")
    if separator == "/" and _VERSION.fullmatch(target):
        if len(target) > 9:
            raise InvalidReference(f"{text[:40]!r}: no version has a number that large")
        return ModelRef(model_name(name), version=int(target))
    return ModelRef(model_name(name), stage=stage_name(target))


def version_text(version: int | None) -> str:
    """Return the text for a version, or for no version, in messages."""
    return "no version" if version is None else f"version {version}"
