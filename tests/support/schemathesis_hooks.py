"""Hooks of schemathesis: make CSV and Parquet bodies, which a JSON schema cannot describe."""

import os
from pathlib import Path

import schemathesis


@schemathesis.serializer("application/vnd.apache.parquet")
def parquet(context: object, value: object) -> bytes:
    """Return the same valid file for each generated value."""
    return Path(os.environ["BODIES"], "rows.parquet").read_bytes()


@schemathesis.serializer("text/csv")
def csv(context: object, value: object) -> bytes:
    """Return the same valid file for each generated value."""
    return Path(os.environ["BODIES"], "rows.csv").read_bytes()
