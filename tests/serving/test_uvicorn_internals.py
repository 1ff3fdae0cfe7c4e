"""The private parts of uvicorn exist in the version that they were read in."""

from __future__ import annotations

import uvicorn

from registry_tools.serving import uvicorn_internals


def test_uvicorn_is_the_version_whose_private_parts_are_used() -> None:
    reason = f"read uvicorn_internals.py against uvicorn {uvicorn.__version__}, and then name it there"
    assert uvicorn.__version__ == uvicorn_internals.VERSION, reason
