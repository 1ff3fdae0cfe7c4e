"""Models whose maker means harm: nothing of theirs runs, whatever their `MLmodel` says."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import yaml
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import VerificationError
from registry_tools.models import loader, manifest
from registry_tools.models.trust_policy import TrustPolicy
from tests.support.constants import IRIS_COLUMNS, LONG
from tests.support.crafted_models import load, save_model
from tests.support.registries import GOOD, Change, Place, crafted, evidence_folder, renew_manifest


class Touch:
    """Unpickling it leaves a file behind."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Touch()))


def behind_another_loader(folder: Path, content: dict[str, Any]) -> None:
    write_pickle(folder / "model.pkl")
    (folder / "model.xgb").write_text("{}")
    content["flavors"] = {
        "sklearn": {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"},
        "python_function": {"loader_module": "mlflow.xgboost", "data": "model.xgb"},
    }


def lightgbm_of_another_class(folder: Path, content: dict[str, Any]) -> None:
    write_pickle(folder / "model.txt")
    content["flavors"] = {
        "lightgbm": {"data": "model.txt", "model_class": "lightgbm.sklearn.LGBMClassifier"},
        "python_function": {"loader_module": "mlflow.lightgbm", "data": "model.txt"},
    }


def nested(folder: Path, content: dict[str, Any]) -> None:
    inner: dict[str, Any] = {"flavors": {}}
    (folder / "sub").mkdir()
    lightgbm_of_another_class(folder / "sub", inner)
    (folder / "sub" / "MLmodel").write_text(yaml.safe_dump(inner))
    (folder / "model.txt").write_text("tree")
    content["flavors"] = {
        "lightgbm": {"data": "model.txt", "model_class": "lightgbm.basic.Booster"},
        "python_function": {"loader_module": "mlflow.lightgbm", "data": "sub"},
    }


def with_code(folder: Path, content: dict[str, Any]) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "sklearn.py").write_text("import os; os.mkdir('executed')")
    content["flavors"]["sklearn"]["code"] = "code"


def outside(folder: Path, content: dict[str, Any]) -> None:
    elsewhere = folder.parent / "elsewhere.skops"
    elsewhere.write_bytes((folder / "model.skops").read_bytes())
    content["flavors"]["sklearn"]["pickled_model"] = str(elsewhere)


def above(folder: Path, content: dict[str, Any]) -> None:
    content["flavors"]["sklearn"]["pickled_model"] = "../model.skops"


def under_an_ignored_name(folder: Path, content: dict[str, Any]) -> None:
    (folder / "model.skops").rename(folder / "registered_model_meta")
    content["flavors"]["sklearn"]["pickled_model"] = "registered_model_meta"


def without_flavors(folder: Path, content: dict[str, Any]) -> None:
    content["flavors"] = ["sklearn"]


def with_a_child_outside_of_its_tree(folder: Path, content: dict[str, Any]) -> None:
    """Predict with it, and the process ends with a segmentation fault."""
    rows = np.random.default_rng(0).normal(size=(60, 4))
    tree = DecisionTreeClassifier().fit(rows, np.arange(60) % 3)
    _, arguments, state = tree.tree_.__reduce__()
    nodes = state["nodes"].copy()
    nodes["left_child"][0] = nodes["right_child"][0] = 1 << 40
    tree.tree_ = Tree(*arguments)
    tree.tree_.__setstate__({**state, "nodes": nodes})
    skops.io.dump(tree, folder / "model.skops")


def not_a_model(folder: Path, content: dict[str, Any]) -> None:
    skops.io.dump({"a": 1}, folder / "model.skops")


@pytest.mark.parametrize(
    "change",
    [
        *(behind_another_loader, lightgbm_of_another_class, nested, with_code),
        *(outside, above, under_an_ignored_name, without_flavors, not_a_model),
        with_a_child_outside_of_its_tree,
    ],
    ids=lambda change: change.__name__,
)
def test_a_hostile_model_is_refused_and_no_code_runs(
    local: Place, tmp_path: Path, change: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = crafted(local, change)
    with pytest.raises(VerificationError):
        load_model(ref)
    capsys.readouterr()
    for code, *command in (
        (1, "predict", ref, "--features", "1,2,3,4"),
        (1, "export", ref, "-o", "model.joblib"),
        (3, "promote", ref, "--to", "production"),
    ):
        assert main(command) == code
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.rglob("executed"))
    assert not (tmp_path / "model.joblib").exists()


@LONG
@pytest.mark.slow
def test_scoring_refuses_a_model_that_would_crash_in_one_line(
    local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = crafted(local, with_a_child_outside_of_its_tree)
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    rows.write_text(f"{','.join(IRIS_COLUMNS)}\n1,2,3,4\n")
    capsys.readouterr()
    assert main(["score", ref, "--input", str(rows), "--output", str(out)]) == 1
    error = capsys.readouterr().err
    assert "a child is outside of its nodes" in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("a\0b", "x" * 5000, "", ".", "..", "none.skops", "/dev/null"),
        *("./registered_model_meta", "sub/../registered_model_meta"),
    ],
)
def test_a_file_name_that_is_no_file_of_the_model_is_refused(name: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1]))
    (folder / "sub").mkdir()
    shutil.copy(folder / "model.skops", folder / "registered_model_meta")  # no digest covers it
    text = (folder / "MLmodel").read_text()
    content = yaml.safe_load(text)
    content["flavors"]["sklearn"]["pickled_model"] = name
    (folder / "MLmodel").write_text(yaml.safe_dump(content))
    with pytest.raises(VerificationError, match="which is not a file of the model"):
        load(folder)


def test_a_file_that_no_digest_covers_is_not_there_to_be_read(local: Place) -> None:
    name = local.model(GOOD)
    stored = Path(local.client.get_model_version_download_uri(name, "1"), "registered_model_meta")
    stored.write_text("a: &a [*a]")
    try:
        with loader.verified_files(local.client, local.version(name, 1), TrustPolicy()) as folder:
            assert (folder / "MLmodel").is_file()
            assert not (folder / stored.name).exists()
    finally:
        stored.unlink()


def test_a_file_swapped_after_verification_is_not_loaded(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = crafted(local, lambda folder, content: None)
    stored = Path(local.client.get_model_version_download_uri(*ref.split("/"))) / "model.skops"
    check = manifest.check_files

    def check_then_swap(*arguments: Any) -> int:
        found = check(*arguments)
        stored.write_bytes(b"swapped")
        return found

    monkeypatch.setattr(loader.manifest, manifest.check_files.__name__, check_then_swap)
    assert load_model(ref).predict([[6.0, 2.5, 4.5, 1.5]]).tolist() == [1]


@pytest.mark.parametrize("target", ["MLmodel", "sub", "none", "/etc/passwd"])
def test_a_link_in_a_models_files_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.skops").symlink_to(target)
    with pytest.raises(VerificationError, match=r"model\.skops is not a regular file"):
        manifest.manifest_of(tmp_path)


@pytest.mark.parametrize(("first", "second"), [("a.txt", "A.txt"), ("\u00e9", "e\u0301")])
def test_two_names_that_are_one_file_elsewhere_are_refused(first: str, second: str, tmp_path: Path) -> None:
    (tmp_path / first).write_text("1")
    assert list(manifest.manifest_of(tmp_path)) == [first]
    (tmp_path / second).write_text("2")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system has one file for both")
    with pytest.raises(VerificationError, match="differ only in case: rename one of them"):
        manifest.manifest_of(tmp_path)


def test_a_manifest_covers_the_files_of_a_folder_that_is_linked_to(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "sub" / "a").write_text("1")
    (tmp_path / "link").symlink_to("real")
    assert list(manifest.manifest_of(tmp_path / "link")) == ["sub/a"]


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "A"), ("../a",), ("/a",), ("a/../b",), ("./a",), ("a//b",), ("a/",), ("",)]
)
def test_a_manifest_with_double_or_indirect_names_is_not_readable(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    def write(*files: str) -> None:
        listed = ", ".join(f'"{name}": "0"' for name in files)
        (tmp_path / manifest.MANIFEST_FILE).write_text(f'{{"model": {{{listed}}}, "evidence": {{}}}}')

    write("a/b", "..c", "a b")
    assert manifest.read_manifest(tmp_path) is not None
    write(*names)
    assert manifest.read_manifest(tmp_path) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("recorded_predictions.json", b"[" * 5000),
        ("training_rows.npz", pickle.dumps([1])),
        *(
            pytest.param(file, content, marks=LONG)
            for file, content in (
                ("recorded_predictions.json", b"{"),
                ("recorded_predictions.json", b'{"rows": 3, "predictions": [], "probabilities": null}'),
                ("holdout.parquet", b"no parquet"),
                ("training_rows.npz", b"\x93NUMPY"),
                ("training_rows.npz", b"PK\x03\x04"),
            )
        ),
    ],
)
def test_damaged_evidence_refuses_a_promotion(
    local: Place, tmp_path: Path, file: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = crafted(local, lambda folder, content: None)
    evidence_folder(local, *_split(ref)).joinpath(file).write_bytes(content)
    renew_manifest(local, *_split(ref))
    capsys.readouterr()
    assert main(["promote", ref, "--to", "production"]) == 3
    err = capsys.readouterr().err
    assert f"evidence/{file} is not readable" in err
    assert err.count("\n") == 1
    # As the champion it does not block later promotions for ever.
    name = ref.partition("/")[0]
    main(["promote", ref, "--to", "production", "--force", "--reason", "a test"])
    assert main(["promote", f"{name}/1", "--to", "production"]) == 3
    assert main(["promote", f"{name}/1", "--to", "production", "--force", "--reason", "mend"]) == 0


def _split(ref: str) -> tuple[str, int]:
    name, _, version = ref.partition("/")
    return name, int(version)
