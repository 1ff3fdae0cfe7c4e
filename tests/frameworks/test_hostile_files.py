"""Files of each format that try to run code or reach other files: all are refused, and nothing runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from registry_tools.errors import VerificationError
from registry_tools.models.folder_loader import load_folder
from registry_tools.models.trust_policy import TrustPolicy
from tests.frameworks.cases import FRAMEWORKS, MATRIX, Framework, log_version, needs

BY_TITLE = {framework.title: framework for framework in FRAMEWORKS}
KERAS, PYTORCH = BY_TITLE["Keras"], BY_TITLE["PyTorch, `pt2`"]
torch_only = needs("torch")


class Touch:
    """Unpickling it leaves a folder behind."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def saved(framework: Framework) -> Path:
    """Return the folder of a model that was logged just now."""
    log_version(framework, "petals")
    return Path(mlflow.MlflowClient().get_model_version_download_uri("petals", "1"))


def refusal(folder: Path) -> str:
    """Return the reason why a folder is not loaded, after checking that no code of it ran."""
    with pytest.raises(VerificationError) as caught:
        load_folder(folder, TrustPolicy())
    assert not Path("executed").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Change the records of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def change_json(path: Path, record: str, change: Callable[[Any], None]) -> None:
    """Change a record of JSON in a zip archive."""

    def changed(name: str, content: bytes) -> bytes:
        if not name.endswith(record):
            return content
        parsed = json.loads(content)
        change(parsed)
        return json.dumps(parsed).encode()

    rewrite(path, changed)


def change_flavor(folder: Path, flavor: str, **values: Any) -> None:
    content = yaml.safe_load((folder / "MLmodel").read_text())
    content["flavors"][flavor].update(values)
    (folder / "MLmodel").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("title", "file"),
    [
        ("XGBoost: estimator", "model.ubj"),
        ("XGBoost: `Booster`", "model.ubj"),
        ("LightGBM: estimator", "model.skops"),
        ("LightGBM: `Booster`", "model.lgb"),
        ("CatBoost", "model.cb"),
        ("ONNX", "model.onnx"),
        ("Keras", "data/model.keras"),
        pytest.param("PyTorch, `pt2`", "data/model.pt2", marks=torch_only),
    ],
)
def test_a_pickle_under_the_name_of_a_native_file_is_not_loaded(title: str, file: str, store: str) -> None:
    folder = saved(BY_TITLE[title])
    (folder / file).write_bytes(pickle.dumps(Touch()))
    assert "is not readable" in refusal(folder)


@pytest.mark.parametrize(
    ("title", "flavor", "values", "advice"),
    [
        ("LightGBM: estimator", "lightgbm", {"serialization_format": "cloudpickle"}, "format='skops'"),
        ("CatBoost", "catboost", {"save_format": "python"}, "the default format"),
        ("CatBoost", "catboost", {"model_type": "os.system"}, "the default format"),
        ("ONNX", "onnx", {"onnx_session_options": {"extra_session_config": {}}}, "without these settings"),
        ("Keras", "keras", {"save_exported_model": True}, "as a .keras file"),
        pytest.param("PyTorch, `pt2`", "pytorch", {"model_data": "."}, "format='pt2'", marks=torch_only),
        ("statsmodels", "statsmodels", {}, "a model of statsmodels has no format without code"),
        ("Python function", "python_function", {}, "a Python function is code"),
    ],
)
def test_a_refusal_advises_how_to_log_a_model_of_this_flavor(
    title: str, flavor: str, values: dict[str, Any], advice: str, store: str
) -> None:
    folder = saved(BY_TITLE[title])
    change_flavor(folder, flavor, **values)
    reason = refusal(folder)
    assert "would run code" in reason
    assert advice in reason
    assert "--allow-code" in reason


@pytest.mark.parametrize("package", ["xgboost", "catboost", "onnxruntime", "keras"])
def test_a_missing_package_is_named_with_its_installation(
    package: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = {"xgboost": "XGBoost: estimator", "catboost": "CatBoost", "onnxruntime": "ONNX"}
    folder = saved(BY_TITLE[titles.get(package, "Keras")])
    monkeypatch.setitem(__import__("sys").modules, package, None)
    assert f"needs {package}, which is not installed: pip install" in refusal(folder)


@pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "MISSING"])
def test_an_onnx_graph_with_data_outside_of_its_folder_is_refused(location: str, store: str) -> None:
    import onnx

    folder = saved(BY_TITLE["ONNX"])
    (folder.parent / "weights").write_bytes(bytes(1000))
    graph = onnx.load(folder / "model.onnx")
    tensor = next(each for each in graph.graph.initializer if len(each.dims) == 2)
    tensor.ClearField("raw_data")
    tensor.ClearField("double_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    assert "which is not a file of the model" in refusal(folder)


def keras_layer(**layer: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config["config"]["layers"].insert(1, {"registered_name": None, **layer})

    return change


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (keras_layer(module="keras.layers", class_name="Lambda", config={}), "keras.layers.Lambda"),
        (keras_layer(module="os", class_name="function", config="mkdir"), "os.mkdir"),
        (keras_layer(class_name="Lambda", config={}), "None.Lambda"),
        (keras_layer(module="keras.layers", class_name="__lambda__", config={}), "keras.layers.__lambda__"),
        (keras_layer(module="keras.layers", class_name="StringLookup", config={}), "keras.layers.StringLook"),
        (keras_layer(module="keras.utils", class_name="function", config="get_file"), "keras.utils.get_file"),
        (
            keras_layer(module="keras.layers", class_name="Dense", registered_name="a>Evil", config={}),
            ".a>Evil",
        ),
    ],
)
def test_a_keras_file_that_names_other_types_is_refused(
    change: Callable[[Any], None], name: str, store: str
) -> None:
    folder = saved(KERAS)
    change_json(folder / "data" / "model.keras", "config.json", change)
    assert f"the Keras model contains {name}" in refusal(folder)


def test_a_keras_file_with_weights_in_another_file_is_refused(store: str) -> None:
    import h5py

    folder = saved(KERAS)

    def linked(name: str, content: bytes) -> bytes:
        if not name.endswith(".h5"):
            return content
        buffer = io.BytesIO(content)
        with h5py.File(buffer, "a") as file:
            file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
        return buffer.getvalue()

    rewrite(folder / "data" / "model.keras", linked)
    assert "has weights in another file ('elsewhere')" in refusal(folder)


def evaluated(program: Any) -> None:
    """Put code where `torch.export.load` evaluates expressions."""
    code = "__import__('os').mkdir('executed') or Symbol('s0')"
    for value in program["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = code
    program["guards_code"] = ["__import__('os').mkdir('executed') or True"]


@torch_only
def test_expressions_and_guards_in_a_pt2_file_are_not_evaluated(store: str) -> None:
    folder = saved(PYTORCH)
    expected = load_folder(folder, TrustPolicy()).predict(MATRIX)
    change_json(folder / "data" / "model.pt2", "models/model.json", evaluated)
    assert load_folder(folder, TrustPolicy()).predict(MATRIX).tolist() == expected.tolist()
    assert not Path("executed").exists()


@torch_only
@pytest.mark.parametrize(
    "target",
    ["torch.os.system", "torch.ops.aten.from_file.default", "_operator.attrgetter", "math.sin", "#a:b"],
)
def test_a_pt2_file_with_another_operation_is_refused(target: str, store: str) -> None:
    folder = saved(PYTORCH)

    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    change_json(folder / "data" / "model.pt2", "models/model.json", change)
    assert "which is not on the list of operations that only compute" in refusal(folder)


@torch_only
def test_a_pt2_file_with_a_file_name_among_its_arguments_is_refused(store: str) -> None:
    folder = saved(PYTORCH)

    def change(program: Any) -> None:
        given = {"name": "filename", "arg": {"as_string": "/etc/passwd"}, "kind": 1}
        program["graph_module"]["graph"]["nodes"][0]["inputs"].append(given)

    change_json(folder / "data" / "model.pt2", "models/model.json", change)
    assert "gives torch.ops.aten.linear.default a as_string" in refusal(folder)


@torch_only
def test_a_pt2_file_with_a_pickled_tensor_is_refused(store: str) -> None:
    folder = saved(PYTORCH)

    def change(config: Any) -> None:
        next(iter(config["config"].values()))["use_pickle"] = True

    change_json(folder / "data" / "model.pt2", "model_weights_config.json", change)
    assert "has the pickled tensor" in refusal(folder)
