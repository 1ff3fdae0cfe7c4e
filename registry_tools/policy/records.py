"""The values of the tags of a stage: JSON objects, bound to the digest of the version and to the head."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from registry_tools.errors import VerificationError

if TYPE_CHECKING:
    from typing_extensions import Self

_CONFIG = ConfigDict(strict=True, extra="forbid")
_Head = Annotated[int, Field(ge=0)]


def verdict_digest(envelope: str) -> str:
    """Return the SHA-256 (hex) of the text of a verdict tag, which requests and approvals name."""
    return hashlib.sha256(envelope.encode(errors="surrogatepass")).hexdigest()


class Record:
    """Has the conversion to and from the value of a tag."""

    def to_text(self) -> str:
        """Return the value of the tag."""
        return json.dumps(dataclasses.asdict(self))  # type: ignore[call-overload]

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the value of a tag, which any user may have written.

        Raises
        ------
        VerificationError
            If the text is not JSON with the fields of this record.
        """
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its value"
            message = f"the tag {cls.__name__.lower()} is not valid: {where}: {first['msg']}"
            raise VerificationError(message) from error


@dataclass(frozen=True, config=_CONFIG)
class Request(Record):
    """A request to promote a version to a stage."""

    reason: str
    digest: str | None  # of the model files
    head: _Head  # the number of moves of the stage when this was written
    verdict: str | None  # `verdict_digest` of the verdict tag; None if there was none
    by: str | None = None  # the store writes the authenticated user here, and the time into `at`
    at: str | None = None  # ISO 8601, UTC


@dataclass(frozen=True, config=_CONFIG)
class Approval(Request):
    """An approval of a version for a stage, or its rejection."""

    decision: Literal["approve", "reject"] = dataclasses.field(kw_only=True)


@dataclass(frozen=True, config=_CONFIG)
class Force(Record):
    """The permission to move a stage to a version without a verdict, once."""

    reason: str
    head: _Head
    by: str | None = None
    at: str | None = None


@dataclass(frozen=True, config=_CONFIG)
class Held(Record):
    """How a version last entered or left a stage; written by the store only."""

    head: _Head  # the number of moves of the stage, with this one
    envelope: str | None  # the verdict with which it entered; None if it was forced
    digest: str | None
    by: str | None
    at: str
    action: Literal["promote", "rollback", "force"]
    reason: str
