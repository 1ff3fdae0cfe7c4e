"""Read by schemathesis: how a Parquet body is made, which no schema describes."""

import os
from pathlib import Path

import schemathesis


@schemathesis.serializer("application/vnd.apache.parquet")
def parquet(context: object, value: object) -> bytes:
    """Return one valid file, whatever was generated."""
    return Path(os.environ["PARQUET_BODY"]).read_bytes()
