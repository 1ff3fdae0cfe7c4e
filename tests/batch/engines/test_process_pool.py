"""The errors that a worker process reports."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from registry_tools.batch.engines import messages, process_pool
from registry_tools.errors import InputError, RegistryToolsError, VerificationError, first_line
from registry_tools.processes import write_message


def reporting(kind: str) -> Any:
    """Return a process that has reported an error of this type."""
    replies = io.BytesIO()
    write_message(replies, {"kind": messages.ERROR, "type": kind, "message": "row 3"})
    replies.seek(0)
    return SimpleNamespace(stdout=replies)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (InputError.__name__, InputError),
        (VerificationError.__name__, VerificationError),
        (first_line.__name__, RegistryToolsError),
        ("KeyError", RegistryToolsError),
        ("__doc__", RegistryToolsError),
    ],
)
def test_an_unknown_error_type_becomes_the_base_error(kind: str, error: type[RegistryToolsError]) -> None:
    with pytest.raises(RegistryToolsError, match="row 3") as caught:
        process_pool._receive(reporting(kind))
    assert type(caught.value) is error
