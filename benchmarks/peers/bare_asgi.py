"""The upper limit for Python: bare ASGI on uvicorn, one matrix product, no checks.

python benchmarks/peers/bare_asgi.py MODEL.joblib PORT
"""

from __future__ import annotations

import sys
from typing import Any

import joblib
import numpy as np
import orjson
import uvicorn

_estimator = joblib.load(sys.argv[1])[-1]
_WEIGHTS, _BIAS = _estimator.coef_.T, _estimator.intercept_


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Predict one row."""
    body = (await receive()).get("body", b"")
    answer = b"{}"
    if body:
        rows = np.array(orjson.loads(body)["dataframe_split"]["data"])
        answer = orjson.dumps({"predictions": (rows @ _WEIGHTS + _BIAS).argmax(axis=1).tolist()})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


uvicorn.run(
    app,
    port=int(sys.argv[2]),
    loop="uvloop",
    http="httptools",
    lifespan="off",
    log_level="warning",
    access_log=False,
)
