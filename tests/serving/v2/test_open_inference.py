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
from registry_tools.serving.v2 import model_tensors, tensors
from registry_tools.serving.v2.tensors import Tensor
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
        for name, message in (("nobody", "only the model 'trained'"), ("trained", "not a column")):
            odd = tritonclient.grpc.InferInput("odd", [1], "FP32")
            odd.set_data_from_numpy(np.zeros(1, np.float32))
            with pytest.raises(InferenceServerException, match=message):
                client.infer(name, [odd])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_columns_are_matched_by_name_in_any_order(reader: httpx.Client, order: list[int]) -> None:
    reply = reader.post(INFER, json={"inputs": by_column(order), "outputs": [{"name": "predict"}]})
    assert reply.json() == {
        "model_name": "trained",
        "model_version": "1",
        "outputs": [{"name": "predict", "shape": [3], "datatype": "INT64", "data": PREDICTIONS}],
    }
    assert reply.headers["x-model-version"] == "1"


def test_a_request_that_names_no_output_gets_all_of_them(reader: httpx.Client) -> None:
    described = reader.get("/v2/models/trained").json()["outputs"]
    outputs = reader.post(INFER, json={"inputs": [tensor("x", ROWS)]}).json()["outputs"]
    assert [entry["name"] for entry in outputs] == [entry["name"] for entry in described]
    assert [entry["name"] for entry in outputs] == ["predict", "predict_proba"]
    assert [entry["datatype"] for entry in outputs] == [entry["datatype"] for entry in described]
    assert [entry["shape"] for entry in outputs] == [[3], [3, 3]]


def test_a_request_without_rows_gets_outputs_without_rows(reader: httpx.Client) -> None:
    empty = [{"name": "x", "shape": [0, 4], "datatype": "FP64", "data": []}]
    columns = [{"name": name, "shape": [0], "datatype": "FP32", "data": []} for name in IRIS_COLUMNS]
    for inputs in (empty, columns):
        reply = reader.post(INFER, json={"inputs": inputs})
        assert reply.json()["outputs"] == [
            {"name": "predict", "shape": [0], "datatype": "INT64", "data": []},
            {"name": "predict_proba", "shape": [0, 3], "datatype": "FP64", "data": []},
        ]


def test_the_platform_is_one_that_the_specification_allows(reader: httpx.Client) -> None:
    assert reader.get("/v2/models/trained").json()["platform"] == ""


def test_a_long_name_is_cut_in_the_message(reading: dict[str, int], reader: httpx.Client) -> None:
    long = "n" * (4 << 20)
    requests = [
        {"inputs": [tensor(long, ROWS) | extra]}
        for extra in ({}, {"datatype": "X"}, {"shape": [2]}, {"shape": []}, {"data": 1}, {"data": ["x"] * 12})
    ]
    requests[0] = {"inputs": [tensor(long, ROWS[:, 0])]}
    requests += [{"inputs": [tensor("x", ROWS)], "outputs": [{"name": long}]}]
    requests += [{"inputs": [tensor("x", ROWS)], "id": long}]
    for content in requests:
        reply = reader.post(INFER, json=content)
        assert reply.status_code == 400
        assert len(reply.content) < 500, reply.text[:200]
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{reading['grpc']}") as client:
        odd = tritonclient.grpc.InferInput(long, [1], "FP32")
        odd.set_data_from_numpy(np.zeros(1, np.float32))
        with pytest.raises(InferenceServerException, match="'nnn") as caught:
            client.infer("trained", [odd])
    assert len(str(caught.value)) < 500


def test_nested_data_and_wholes_are_taken(reader: httpx.Client) -> None:
    rows = {"name": "x", "shape": [1, 4], "datatype": "INT32", "data": [[6, 3, 4, 2]]}
    assert reader.post(INFER, json={"inputs": [rows]}).status_code == 200


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "inputs are missing"),
        ({"inputs": []}, "missing column"),
        ({"inputs": [3]}, "not an object"),
        ({"inputs": [{"name": "x"}]}, "lacks"),
        ({"inputs": by_column([0, 1, 2])}, "missing column: 'petal width (cm)'"),
        ({"inputs": [*by_column([0, 1, 2]), tensor("petal widht", [1.0] * 3)]}, "not a column"),
        ({"inputs": by_column([0, 1, 2, 3, 3])}, "same name"),
        ({"inputs": [*by_column([0, 1, 2]), tensor(IRIS_COLUMNS[3], [1.0])]}, "different numbers of rows"),
        ({"inputs": [tensor("x", ROWS, "COMPLEX")]}, "the datatype is none of"),
        ({"inputs": [tensor("x", ROWS) | {"shape": [3, 5]}]}, "12 values"),
        ({"inputs": [tensor("x", ROWS) | {"shape": [3, -4]}]}, "not a list of 1 to 8 lengths"),
        ({"inputs": [tensor("x", ROWS) | {"data": None}]}, "not a list"),
        ({"inputs": [tensor("x", []) | {"shape": [0, 2**32 - 1, 2**32 - 1]}]}, "more than"),
        ({"inputs": [tensor("x", []) | {"shape": [2**40, 0]}]}, "only the first"),
        ({"inputs": [tensor("x", []) | {"shape": [1, 2**40, 0]}]}, "only the first"),
        ({"inputs": [tensor("x", ROWS) | {"data": ["secret"] * 12}]}, "not of its datatype"),
        ({"inputs": [tensor("x", ROWS) | {"data": [[1.0], 2.0]}]}, "unevenly"),
        ({"inputs": [tensor("x", ROWS * 1e39, "FP32")]}, "larger than FP32 holds"),
        ({"inputs": [tensor("x", [[300] * 4], "INT8")]}, "larger than INT8 holds"),
        ({"inputs": [tensor("x", np.full((1, 4), "secret"), "BYTES")]}, "takes numbers"),
        ({"inputs": [tensor("x", ROWS)], "outputs": [{"name": "mood"}]}, "'mood' is unknown"),
        ({"inputs": [tensor("x", ROWS)], "outputs": [3]}, "outputs is not a list"),
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


@pytest.mark.parametrize("name", ["seven", "a b", "\n\0", "\u00e9\U0001f600", "x" * 1000])
def test_the_id_comes_back_unchanged(reading: dict[str, int], reader: httpx.Client, name: str) -> None:
    reply = reader.post(INFER, json={"id": name, "inputs": [tensor("x", ROWS)]})
    assert reply.json()["id"] == name
    rows = tritonclient.grpc.InferInput("rows", [3, 4], "FP64")
    rows.set_data_from_numpy(ROWS)
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{reading['grpc']}") as client:
        assert client.infer("trained", [rows], request_id=name).get_response().id == name
        assert client.infer("trained", [rows]).get_response().id == ""


@pytest.mark.parametrize("name", ["\ud800", "x" * 1001, 7, ["x"]])
def test_an_id_that_cannot_be_sent_back_is_refused(reader: httpx.Client, name: Any) -> None:
    reply = reader.post(INFER, content=json.dumps({"id": name, "inputs": [tensor("x", ROWS)]}))
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("the id ")


def test_a_message_of_another_protocol_is_refused_over_grpc(reading: dict[str, int]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{reading['grpc']}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the message is not a ModelInferRequest"


def test_another_model_or_version_is_not_found(reader: httpx.Client) -> None:
    assert reader.get("/v2/models/nobody").status_code == 404
    assert reader.get("/v2/models/trained/versions/2").status_code == 404
    assert reader.get("/v2/models/trained/versions/1").status_code == 200
    assert reader.get("/v2/models/trained/versions/1/ready").json()["ready"] is True
    assert reader.get("/v2/models/trained/odd").status_code == 404


texts = st.lists(st.text(max_size=9), min_size=1, max_size=9)


@given(values=st.one_of(texts, st.lists(st.floats(allow_nan=False), min_size=1, max_size=9)))
def test_bytes_of_a_tensor_are_read_as_they_were_written(values: list[Any]) -> None:
    written = Tensor("x", model_tensors.as_array(values))
    raw = tensors.to_bytes(written)
    read = tensors.from_bytes("x", written.datatype, written.values.shape, raw)
    assert read.values.tolist() == values
    with pytest.raises(InputError):
        tensors.from_bytes("x", written.datatype, written.values.shape, raw + b"x")
