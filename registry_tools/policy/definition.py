"""The definition of a policy: the evaluators of a registry and the rules of its stages."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from cryptography.hazmat.primitives import serialization
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from registry_tools.attestation.envelope import load_public_key
from registry_tools.errors import InvalidReference
from registry_tools.refs import stage_name

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: object) -> timedelta:
    """Return the time of a text such as `30m`, `12h` or `7d`.

    Raises
    ------
    ValueError
        If the text has another form, or the time is not from 1 minute to 3650 days.
    """
    found = re.fullmatch(r"([0-9]{1,7})([mhd])", text) if isinstance(text, str) else None
    time = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < time <= timedelta(days=3650):
        raise ValueError(f"{text!r} is not a time from 1m to 3650d; write 30m, 12h or 7d")
    return time


def _stage(text: str) -> str:
    try:
        name = stage_name(text)
    except InvalidReference as error:
        raise ValueError(str(error)) from error
    if name != text:
        raise ValueError(f"write the stage in lower case: {name}")
    return name


def _public_key(text: str) -> str:
    """Return a key in the form that cryptography writes, so that white space does not change the digest."""
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return load_public_key(text).public_bytes(*form).decode()


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)!r} is listed twice")
    return names


Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], AfterValidator(_unique)]
Metrics = dict[Name, Annotated[float, Field(allow_inf_nan=False)]]
Ratio = Annotated[float, Field(gt=0, lt=math.inf)]
Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(lambda time: int(time.total_seconds()))
]
# A quoted time is text in YAML, an unquoted one is not.
Moment = Annotated[AwareDatetime, Field(strict=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class GateRules(_Part):
    """The options of the gates that a candidate must pass."""

    rule: Literal["not-worse", "non-inferior", "better"] = "not-worse"
    metric: Name = "auto"
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    min: Metrics = Field(default_factory=dict)
    max: Metrics = Field(default_factory=dict)
    slices: Names = Field(default_factory=list)
    baseline: bool = True
    max_latency_ms: Ratio | None = None
    max_latency_ratio: Ratio | None = None
    max_size_ratio: Ratio | None = None
    onnx: bool = False


class Approvals(_Part):
    """The number of approvals that a promotion needs, and the users who may approve."""

    count: Annotated[int, Field(ge=0)] = 0
    by: Names = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_count(self) -> Approvals:
        if self.count > len(self.by):
            raise ValueError(f"count is {self.count}, but `by` names {len(self.by)} users; name more users")
        return self


class Freeze(_Part):
    """A time in which no version may be promoted."""

    start: Moment = Field(alias="from")
    until: Moment
    reason: Name

    @model_validator(mode="after")
    def _check_order(self) -> Freeze:
        if self.start >= self.until:
            raise ValueError("`from` must be before `until`")
        return self


class StageRules(_Part):
    """The rules of one stage, as the file gives them."""

    protected: bool = True
    gates: GateRules = Field(default_factory=GateRules)
    evaluators: Names = Field(default_factory=list)
    approvals: Approvals = Field(default_factory=Approvals)
    rollback: Names = Field(default_factory=list)
    force: Names = Field(default_factory=list)
    freeze: list[Freeze] = Field(default_factory=list)
    expires: Duration = timedelta(days=7)


@dataclass(frozen=True)
class StagePolicy:
    """The rules of a protected stage, with all that a decision on a move needs."""

    registry: str
    pattern: str  # of the names of the models
    stage: str
    evaluators: Mapping[str, str]  # public keys in PEM format, by name
    gates: GateRules
    approvals: Approvals
    rollback: tuple[str, ...]
    force: tuple[str, ...]
    freeze: tuple[Freeze, ...]
    expires: timedelta
    digest: str  # SHA-256 (hex) of all these rules

    def frozen_at(self, now: datetime) -> Freeze | None:
        """Return the freeze that forbids promotions at a time; None if there is none."""
        return next((each for each in self.freeze if each.start <= now < each.until), None)


class Policy(_Part):
    """The policy of a registry: the keys of its evaluators, and the rules by model and stage."""

    registry: Name
    evaluators: dict[Name, Annotated[str, AfterValidator(_public_key)]] = Field(default_factory=dict)
    models: dict[Name, dict[Annotated[str, AfterValidator(_stage)], StageRules]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_evaluators(self) -> Policy:
        for pattern, stages in self.models.items():
            for stage, rules in stages.items():
                where = f"models.{pattern}.{stage}.evaluators"
                if rules.protected and not rules.evaluators:
                    raise ValueError(f"{where}: a protected stage needs at least one evaluator")
                for name in rules.evaluators:
                    if name not in self.evaluators:
                        raise ValueError(
                            f"{where}: {name!r} is not in `evaluators`{suggest(name, self.evaluators)}"
                        )
        return self

    def stage(self, model: str, stage: str) -> StagePolicy | None:
        """Return the rules of a stage of a model; None if the stage is not protected.

        The first pattern that matches the name of the model counts.
        """
        pattern = next((each for each in self.models if fnmatchcase(model, each)), None)
        rules = self.models[pattern].get(stage.lower()) if pattern is not None else None
        if pattern is None or rules is None or not rules.protected:
            return None
        keys = {name: self.evaluators[name] for name in rules.evaluators}
        content = {
            "registry": self.registry,
            "model": pattern,
            "stage": stage.lower(),
            "keys": keys,
            "rules": rules.model_dump(mode="json", by_alias=True),
        }
        return StagePolicy(
            registry=self.registry,
            pattern=pattern,
            stage=stage.lower(),
            evaluators=keys,
            gates=rules.gates,
            approvals=rules.approvals,
            rollback=tuple(rules.rollback),
            force=tuple(rules.force),
            freeze=tuple(rules.freeze),
            expires=rules.expires,
            digest=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` if a known name is similar, else nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
