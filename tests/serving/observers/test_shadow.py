"""A candidate in the shadow predicts the same rows; its predictions are compared and discarded."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pandas as pd
import pytest

from registry_tools.mlflow_store import stages
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW, LONG
from tests.support.registries import GOOD, POOR, Place
from tests.support.servers import eventually, metric
from tests.support.serving import Serve

pytestmark = pytest.mark.slow


@pytest.fixture
def model(local: Place) -> str:
    """A model whose second version predicts `setosa` for every row, in staging."""
    name = local.model(GOOD, POOR)
    stages.move_alias(local.client, name, "production", 1)
    stages.move_alias(local.client, name, "staging", 2)
    return name


def shadow_of(client: httpx.Client) -> dict[str, object]:
    return client.get("/model").json().get("shadow") or {}


def ask(client: httpx.Client, times: int = 1) -> None:
    rows = [IRIS_ROW, [5.0, 3.4, 1.5, 0.2]]
    split = {"dataframe_split": {"columns": IRIS_COLUMNS[::-1], "data": [r[::-1] for r in rows]}}
    for _ in range(times):
        reply = client.post("/invocations", json=split)
        assert reply.json() == {"predictions": [1, 0]}
        assert reply.headers["x-model-version"] == "1"


@LONG
@pytest.mark.parametrize("workers", ["1", "2"])
def test_shadow_predictions_are_compared_and_never_returned(
    serve: Serve, model: str, local: Place, workers: str
) -> None:
    client = serve(f"{model}@production", "--shadow", f"{model}@staging", "--workers", workers)
    eventually(lambda: shadow_of(client).get("version") == 2)
    ask(client, 25)
    eventually(lambda: shadow_of(client).get("rows") == 50)
    agreement = shadow_of(client)["agreement"]
    assert isinstance(agreement, float)
    assert agreement < 1
    labels = {"version": "2", "against": "1"}
    assert metric(client, "serving_shadow_rows_total", outcome="disagreed", **labels) > 0
    assert metric(client, "serving_shadow_seconds_count", version="2") == 25
    # The shadow follows a stage of its own.
    stages.move_alias(local.client, model, "staging", 1)
    eventually(lambda: shadow_of(client).get("version") == 1)
    ask(client, 5)
    eventually(lambda: shadow_of(client).get("rows") == 10)
    # A table that MLflow parsed keeps the order of its own columns.
    table = pd.DataFrame([IRIS_ROW], columns=IRIS_COLUMNS)[IRIS_COLUMNS[::-1]].to_csv(index=False)
    reply = client.post("/invocations", content=table, headers={"content-type": "text/csv"})
    assert reply.json() == {"predictions": [1]}
    eventually(lambda: shadow_of(client).get("rows") == 11)
    assert shadow_of(client)["agreement"] == 1


def test_a_shadow_that_is_missing_or_dies_affects_no_response(serve: Serve, model: str, local: Place) -> None:
    client = serve(f"{model}@production", "--shadow", f"{model}@canary")
    eventually(lambda: "no version" in str(shadow_of(client).get("last_error")))
    ask(client, 5)
    eventually(lambda: metric(client, "serving_shadow_dropped_rows_total") == 10)
    stages.move_alias(local.client, model, "canary", 2)
    eventually(lambda: shadow_of(client).get("version") == 2)
    pid = client.process.pid  # type: ignore[attr-defined]

    def shadows() -> list[int]:
        """Return the processes of the server that have a lower priority than its others."""
        children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        lower = os.getpriority(os.PRIO_PROCESS, pid) + 5
        return [child for child in children if os.getpriority(os.PRIO_PROCESS, child) == lower]

    (shadow,) = shadows()
    os.kill(shadow, signal.SIGSTOP)  # slow without end
    ask(client, 500)
    assert metric(client, "serving_shadow_dropped_rows_total") > 0
    os.kill(shadow, signal.SIGKILL)
    ask(client, 20)
    eventually(lambda: shadows() not in ([], [shadow]))
    eventually(lambda: shadow_of(client).get("version") == 2)
    client.process.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    assert client.process.wait(timeout=120) == 0  # type: ignore[attr-defined]
    with pytest.raises(ProcessLookupError):
        os.kill(shadow, 0)
