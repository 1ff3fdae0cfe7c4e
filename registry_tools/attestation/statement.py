"""The statement of a verdict: an in-toto Statement about the files of one version."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from registry_tools.errors import VerificationError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:registry-tools:verdict:v1"

_Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
_DIGESTS = {"model": "model_digest", "evidence": "evidence_digest"}  # the fields by name of the subject


class _Subject(BaseModel):
    name: str
    digest: dict[str, str]


class _Statement(BaseModel):
    # in-toto asks readers to ignore unknown fields, which is pydantic's default.
    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject]
    predicate_type: Literal["urn:registry-tools:verdict:v1"] = Field(alias="predicateType")
    predicate: dict[str, Any]


class Gate(TypedDict):
    """The result of one gate."""

    gate: str
    passed: bool
    message: str
    metrics: dict[str, float]


@dataclass(frozen=True, config=ConfigDict(strict=True))
class VerdictStatement:
    """A verdict about one version, bound to one move of one stage."""

    registry: str  # the id in the policy
    model: str
    version: Annotated[int, Field(ge=1)]
    stage: str
    head: Annotated[int, Field(ge=0)]  # the number of moves of the stage before
    champion: int | None  # the version in the stage; None if it is empty
    policy: _Sha256  # the digest of the policy of the stage
    passed: bool
    gates: tuple[Gate, ...]
    rule: str
    margin: float
    metric: str
    evaluator: str  # the name of the key in the policy
    evaluated_at: AwareDatetime
    expires_at: AwareDatetime
    model_digest: _Sha256
    evidence_digest: _Sha256 | None = None

    def to_bytes(self) -> bytes:
        """Return the statement as JSON, the payload of an envelope."""
        predicate = {
            to_camel(name): _time_text(value) if isinstance(value, datetime) else value
            for name, value in vars(self).items()
            if name not in _DIGESTS.values() and name in _FIELDS
        }
        digests = {self._subject(part): getattr(self, name) for part, name in _DIGESTS.items()}
        subject = [{"name": name, "digest": {"sha256": value}} for name, value in digests.items() if value]
        statement = {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": PREDICATE_TYPE}
        return json.dumps(statement | {"predicate": predicate}, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> VerdictStatement:
        """Read a statement from the payload of a verified envelope.

        Raises
        ------
        VerificationError
            If the payload is not a statement of this type, or its subject is another version.
        """
        try:
            outer = _Statement.model_validate_json(payload)
            digests = {each.name: each.digest["sha256"] for each in outer.subject}
            names = {to_camel(name): name for name in _FIELDS}
            fields = {names[key]: value for key, value in outer.predicate.items() if key in names}
            prefix = f"{fields['model']}/{fields['version']}"
            fields |= {name: digests.pop(f"{prefix}/{part}", None) for part, name in _DIGESTS.items()}
            if digests:
                raise ValueError(f"its subject {min(digests)[:60]!r} is not a part of {prefix[:60]}")
            return _ADAPTER.validate_json(json.dumps(fields))
        except (ValueError, LookupError, RecursionError) as error:
            raise VerificationError(
                f"the payload is not the statement of a verdict: {_reason(error)}"
            ) from error

    def _subject(self, part: str) -> str:
        return f"{self.model}/{self.version}/{part}"


_FIELDS = tuple(field.name for field in dataclasses.fields(VerdictStatement))
_ADAPTER = TypeAdapter(VerdictStatement)


def _time_text(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _reason(error: Exception) -> str:
    errors = error.errors() if isinstance(error, ValidationError) else []
    if errors:
        return f"{'.'.join(map(str, errors[0]['loc']))}: {errors[0]['msg']}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
