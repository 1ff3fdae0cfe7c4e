"""The Open Inference Protocol as its stock clients speak it, over HTTP and gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from registry_tools.errors import InputError
from registry_tools.serving.v2 import tensor_codec, tensors
from tests.support.constants import IRIS_COLUMNS, IRIS_ROW

ROWS = np.array([IRIS_ROW, [5.0, 3.4, 1.5, 0.2], [6.7, 3.0, 5.2, 2.3]])
PREDICTIONS = [1, 0, 2]
INFER = "/v2/models/trained/infer"


def tensor(name: str, values: Any, datatype: str = "FP64") -> dict[str, Any]:
    array = np.asarray(values)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def by_column(order: list[int]) -> list[dict[str, Any]]:
    return [tensor(IRIS_COLUMNS[n], ROWS[:, n]) for n in order]


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_of_triton_works_over_http(reading: dict[str, int], binary: bool) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{reading['http']}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("trained")
    assert client.is_model_ready("trained", "1")
    assert not client.is_model_ready("trained", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    describe_model = client.get_model_metadata("trained")
    assert [entry["name"] for entry in describe_model["inputs"]] == IRIS_COLUMNS
    assert [entry["datatype"] for entry in describe_model["outputs"]] == ["INT64", "FP64"]
    tensor = tritonclient.http.InferInput("rows", list(ROWS.shape), "FP64")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    wanted = [
        tritonclient.http.InferRequestedOutput("predict", binary_data=binary),
        tritonclient.http.InferRequestedOutput("predict_proba", binary_data=not binary),
    ]
    result = client.infer("trained", [tensor], outputs=wanted, request_id="seven")
    assert result.as_numpy("predict").tolist() == PREDICTIONS
    assert result.as_numpy("predict_proba").argmax(axis=1).tolist() == PREDICTIONS
    assert result.get_response()["id"] == "seven"
    assert client.infer("trained", [tensor]).as_numpy("predict").tolist() == PREDICTIONS
    client.close()


def test_the_client_of_triton_works_over_grpc(reading: dict[str, int]) -> None:
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{reading['grpc']}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("trained", "1")
        assert client.get_server_metadata().extensions == ["binary_tensor_data"]
        describe_model = client.get_model_metadata("trained")
        assert [entry.name for entry in describe_model.inputs] == IRIS_COLUMNS
        inputs = []
        for place, name in reversed(list(enumerate(IRIS_COLUMNS))):
            column = ROWS[:, [place]].astype(np.float32)
            inputs.append(tritonclient.grpc.InferInput(name, list(column.shape), "FP32"))
            inputs[-1].set_data_from_numpy(column)
        result = client.infer("trained", inputs, request_id="seven")
        assert result.as_numpy("predict").tolist() == PREDICTIONS
        assert result.get_response().model_version == "1"
        for name, message in (("nobody", "serves 'trained'"), ("trained", "no column")):
            odd = tritonclient.grpc.InferInput("odd", [1], "FP32")
            odd.set_data_from_numpy(np.zeros(1, np.float32))
            with pytest.raises(InferenceServerException, match=message):
                client.infer(name, [odd])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_columns_are_matched_by_name_in_any_order(reader: httpx.Client, order: list[int]) -> None:
    reply = reader.post(INFER, json={"inputs": by_column(order)})
    assert reply.json() == {
        "model_name": "trained",
        "model_version": "1",
        "outputs": [{"name": "predict", "shape": [3], "datatype": "INT64", "data": PREDICTIONS}],
    }
    assert reply.headers["x-model-version"] == "1"


def test_nested_data_and_wholes_are_taken(reader: httpx.Client) -> None:
    rows = {"name": "x", "shape": [1, 4], "datatype": "INT32", "data": [[6, 3, 4, 2]]}
    assert reader.post(INFER, json={"inputs": [rows]}).status_code == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "inputs are missing"),
        ({"inputs": []}, "missing column"),
        ({"inputs": [3]}, "no object"),
        ({"inputs": [{"name": "x"}]}, "lacks"),
        ({"inputs": by_column([0, 1, 2])}, "missing column: 'petal width (cm)'"),
        ({"inputs": [*by_column([0, 1, 2]), tensor("petal widht", [1.0] * 3)]}, "no column"),
        ({"inputs": by_column([0, 1, 2, 3, 3])}, "same name"),
        ({"inputs": [*by_column([0, 1, 2]), tensor(IRIS_COLUMNS[3], [1.0])]}, "lengths"),
        ({"inputs": [tensor("x", ROWS, "COMPLEX")]}, "the datatype is none of"),
        ({"inputs": [tensor("x", ROWS) | {"shape": [3, 5]}]}, "12 values"),
        ({"inputs": [tensor("x", ROWS) | {"shape": [3, -4]}]}, "no list of lengths"),
        ({"inputs": [tensor("x", ROWS) | {"data": None}]}, "no list"),
        ({"inputs": [tensor("x", []) | {"shape": [0, 2**32 - 1, 2**32 - 1]}]}, "above 0"),
        ({"inputs": [tensor("x", ROWS) | {"data": ["secret"] * 12}]}, "not of its datatype"),
        ({"inputs": [tensor("x", ROWS) | {"data": [[1.0], 2.0]}]}, "unevenly"),
        ({"inputs": [tensor("x", np.full((1, 4), "secret"), "BYTES")]}, "takes numbers"),
        ({"inputs": [tensor("x", ROWS)], "outputs": [{"name": "mood"}]}, "'mood' is unknown"),
        ({"inputs": [tensor("x", ROWS)], "outputs": [3]}, "outputs is no list"),
    ],
)
def test_a_bad_tensor_is_refused_with_a_reason(
    reader: httpx.Client, content: dict[str, Any], message: str
) -> None:
    reply = reader.post(INFER, json=content)
    assert reply.status_code == 400, reply.text
    assert message in reply.json()["error"]
    assert "secret" not in reply.text


def test_bytes_that_do_not_fit_their_head_are_refused(reader: httpx.Client) -> None:
    size = {"parameters": {"binary_data_size": 96}}
    entry = {"name": "x", "shape": [3, 4], "datatype": "FP64", **size}
    head = json.dumps({"inputs": [entry]}).encode()
    for body, length, status in (
        (head + ROWS.tobytes(), len(head), 200),
        (head + ROWS.tobytes(), len(head) - 1, 400),
        (head + ROWS.tobytes(), 10**9, 400),
        (head + ROWS.tobytes(), -1, 400),
        (head + ROWS.tobytes(), "0" * 5000, 400),
        (head + ROWS.tobytes()[:-1], len(head), 400),
        (head + ROWS.tobytes() + b"x", len(head), 400),
    ):
        headers = {"Inference-Header-Content-Length": str(length)}
        assert reader.post(INFER, content=body, headers=headers).status_code == status


def test_an_id_that_cannot_be_sent_back_is_left_out(reader: httpx.Client) -> None:
    content = json.dumps({"id": "\ud800", "inputs": [tensor("x", ROWS)]})
    reply = reader.post(INFER, content=content)
    assert reply.status_code == 200
    assert "id" not in reply.json()


def test_a_message_of_another_protocol_is_refused_over_grpc(reading: dict[str, int]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{reading['grpc']}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "this is no message of the protocol"


def test_another_model_or_version_is_not_found(reader: httpx.Client) -> None:
    assert reader.get("/v2/models/nobody").status_code == 404
    assert reader.get("/v2/models/trained/versions/2").status_code == 404
    assert reader.get("/v2/models/trained/versions/1").status_code == 200
    assert reader.get("/v2/models/trained/versions/1/ready").json()["ready"] is True
    assert reader.get("/v2/models/trained/odd").status_code == 404


texts = st.lists(st.text(max_size=9), min_size=1, max_size=9)


@given(values=st.one_of(texts, st.lists(st.floats(allow_nan=False), min_size=1, max_size=9)))
def test_bytes_of_a_tensor_are_read_as_they_were_written(values: list[Any]) -> None:
    (written,) = tensor_codec.tensors_from_predictions("x", values)
    raw = tensors.to_bytes(written)
    read = tensors.from_bytes("x", written.datatype, written.values.shape, raw)
    assert read.values.tolist() == values
    with pytest.raises(InputError):
        tensors.from_bytes("x", written.datatype, written.values.shape, raw + b"x")
