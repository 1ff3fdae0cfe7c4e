"""What an `MLmodel` may cost to read, whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry_tools.errors import VerificationError
from registry_tools.models.formats import describe
from registry_tools.models.frameworks.flavors import format_of
from registry_tools.models.frameworks.native_format import FormatRunsCode

_FLAVORS = "flavors: {sklearn: {serialization_format: skops, pickled_model: m.skops}}\n"
# Each line names the one before ten times: 1.1 KB, and a billion values.
_ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


def columns(count: int, name: str = "x") -> str:
    inputs = [{"name": f"{name}{index}", "type": "double"} for index in range(count)]
    return yaml.safe_dump({"signature": {"inputs": json.dumps(inputs)}})


def tensor(count: int) -> str:
    inputs = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, count]}}]
    return yaml.safe_dump({"signature": {"inputs": json.dumps(inputs)}})


def classes(*names: Any) -> str:
    return yaml.safe_dump({"metadata": {"target_names": list(names)}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_ALIASES, "MLmodel has an alias or anchor in line 2"),
        ("a: " + "[" * 60 + "]" * 60, "MLmodel is nested more than 50 deep in line 2"),
        ("a: 1" + ":1" * 100_000, "MLmodel has a number of 200,001 digits in line 2"),
        ("# " + "x" * (2 << 20), "MLmodel has 2,097,228 bytes, and at most 2,097,152 are supported"),
        (columns(10_001), "MLmodel names 10,001 columns, and at most 10,000 are supported"),
        (columns(1, "x" * 500), "MLmodel has a name of 501 characters among its columns"),
        (tensor(1_000_001), r"MLmodel names a tensor float64 \(-1, 1000001\)"),
        (classes(*map(str, range(10_001))), "MLmodel names 10,001 target_names, and at most 10,000"),
        (classes("a", "b" * 501), "MLmodel has a name of 501 characters among its target_names"),
        ("saved_input_example_info: {artifact_path: /dev/zero}", "names '/dev/zero', which is not a file"),
        ("saved_input_example_info: {artifact_path: [1]}", r"names '\[1\]', which is not a file"),
    ],
    ids=lambda text: text[:25] if isinstance(text, str) else None,
)
def test_an_mlmodel_that_is_expensive_to_read_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(_FLAVORS + text)
    with pytest.raises(VerificationError, match=message) as caught:
        describe(tmp_path)
    assert "\n" not in str(caught.value)


def test_many_columns_and_classes_with_long_names_are_read(tmp_path: Path) -> None:
    names = [f"{index:0500}" for index in range(1000)]
    (tmp_path / "MLmodel").write_text(_FLAVORS + columns(10_000) + classes(*names))
    description = describe(tmp_path)
    assert len(description.signature or ()) == 10_000
    assert description.target_names == tuple(names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("serving_input_example.json", b" " * (16 << 20) + b"{}", "has 16,777,218 bytes, and at most"),
        ("requirements.txt", b"#" * ((2 << 20) + 1), "has 2,097,153 bytes"),
        ("conda.yaml", b"a: &a [1]\nb: *a\n", "conda.yaml has an alias or anchor in line 1"),
        ("conda.yaml", b"\xff", "conda.yaml is not readable as YAML"),
        ("python_env.yaml", b"a: [", "python_env.yaml is not readable as YAML"),
    ],
)
def test_the_files_beside_it_are_capped_too(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(_FLAVORS)
    describe(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VerificationError, match=message):
        describe(tmp_path)


def onnx(**flavor: Any) -> dict[str, Any]:
    return {
        "onnx": {"data": "model.onnx", **flavor},
        "python_function": {"loader_module": "mlflow.onnx", "data": "model.onnx"},
    }


@pytest.mark.parametrize(
    ("flavor", "reason"),
    [
        ({"providers": ["MyExecutionProvider"]}, "the provider MyExecutionProvider; the allowed"),
        ({"providers": "AzureExecutionProvider"}, "the provider AzureExecutionProvider"),
        ({"providers": [["CUDAExecutionProvider", {"a": "b"}]]}, r"the provider \['CUDAExecutionProvider'"),
        ({"providers": 3}, "the provider 3"),
        ({"onnx_session_options": {"extra_session_config": {"a": "b"}}}, "the session option extra_session"),
        ({"onnx_session_options": "threads"}, "the session option threads"),
    ],
)
def test_onnx_has_known_providers_without_options(flavor: dict[str, Any], reason: str) -> None:
    with pytest.raises(FormatRunsCode, match=reason):
        format_of(onnx(**flavor), Path())


def test_onnx_as_mlflow_saves_it_is_taken() -> None:
    for providers in (["CUDAExecutionProvider", "CPUExecutionProvider"], "CPUExecutionProvider", None, []):
        flavor = {"providers": providers, "onnx_session_options": {"intra_op_num_threads": 1}}
        assert format_of(onnx(**flavor), Path()) == ("onnx", "model.onnx")


def test_an_mlmodel_that_names_another_prediction_function_is_refused() -> None:
    flavors = onnx()
    flavors["python_function"]["predict_fn"] = "get_raw_model"
    with pytest.raises(FormatRunsCode, match="the prediction function get_raw_model"):
        format_of(flavors, Path())
