"""A regressor without class names predicts the same numbers on every protocol, and in a scoring job."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tritonclient.grpc

from registry_tools.cli.main import main
from tests.support.commands import run
from tests.support.constants import LONG
from tests.support.registries import Place
from tests.support.regressions import FEATURES, GOOD, regressions
from tests.support.servers import free_port
from tests.support.serving import Serve

pytestmark = pytest.mark.slow
ROWS = FEATURES.head(3)
EXPECTED = pytest.approx(GOOD.predict(ROWS))


@LONG
def test_each_protocol_and_command_gives_the_numbers_of_the_estimator(
    local: Place, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    name = regressions(local, GOOD)
    port = free_port()
    client = serve(f"{name}/1", "--tracking-uri", local.uri, "--grpc-port", str(port))
    found = client.post("/predict", json={"features": ROWS.to_numpy().tolist()}).json()
    assert [row["prediction"] for row in found["predictions"]] == EXPECTED
    assert list(found["predictions"][0]) == ["prediction"]
    one = client.post("/predict", json={"features": ROWS.iloc[0].to_dict()}).json()
    assert one["prediction"] == pytest.approx(GOOD.predict(ROWS)[0])
    refused = client.post("/predict", json={"features": ROWS.iloc[0].to_dict(), "proba": True})
    assert refused.status_code == 400
    found = client.post("/invocations", json={"dataframe_split": ROWS.to_dict("split")}).json()
    assert found["predictions"] == EXPECTED
    inputs = [
        {"name": column, "datatype": "FP64", "shape": [3, 1], "data": ROWS[column].tolist()}
        for column in ROWS
    ]
    (output,) = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}).json()["outputs"]
    assert (output["datatype"], output["data"]) == ("FP64", EXPECTED)
    grpc = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")
    tensors = []
    for column in ROWS:
        tensors.append(tritonclient.grpc.InferInput(column, [3, 1], "FP64"))
        tensors[-1].set_data_from_numpy(ROWS[[column]].to_numpy())
    assert np.ravel(grpc.infer(name, tensors).as_numpy("predict")) == EXPECTED
    ROWS.to_csv("rows.csv", index=False)
    capsys.readouterr()
    printed = run(capsys, "predict", f"{name}/1", "--input", "rows.csv", "--tracking-uri", local.uri)
    assert [row["prediction"] for row in printed] == EXPECTED
    argv = [
        "score",
        f"{name}/1",
        "--input",
        "rows.csv",
        "--output",
        "scored.csv",
        "--tracking-uri",
        local.uri,
    ]
    assert main(argv) == 0
    assert pd.read_csv("scored.csv")["prediction"].tolist() == EXPECTED
