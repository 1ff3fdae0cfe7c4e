"""Hooks of schemathesis: make Parquet bodies, which a JSON schema cannot describe."""

import os
from pathlib import Path

import schemathesis


@schemathesis.serializer("application/vnd.apache.parquet")
def parquet(context: object, value: object) -> bytes:
    """Return the same valid file for each generated value."""
    return Path(os.environ["PARQUET_BODY"]).read_bytes()
