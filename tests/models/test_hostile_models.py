"""Models whose maker means harm: nothing of theirs runs, whatever their `MLmodel` says."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import VerificationError
from registry_tools.models import loader, manifest
from tests.support.registries import Change, Place, crafted, evidence_folder, renew_manifest


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


def not_a_model(folder: Path, content: dict[str, Any]) -> None:
    import skops.io

    skops.io.dump({"a": 1}, folder / "model.skops")


@pytest.mark.parametrize(
    "change",
    [
        *(behind_another_loader, lightgbm_of_another_class, nested, with_code),
        *(outside, above, under_an_ignored_name, without_flavors, not_a_model),
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


def test_a_link_in_a_models_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    (tmp_path / "model.skops").symlink_to(tmp_path / "MLmodel")
    with pytest.raises(VerificationError, match=r"model\.skops is not a regular file"):
        manifest.manifest_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("recorded_predictions.json", b"{"),
        ("recorded_predictions.json", b'{"rows": 3, "predictions": [], "probabilities": null}'),
        ("recorded_predictions.json", b"[" * 5000),
        ("holdout.parquet", b"no parquet"),
        ("training_rows.npz", pickle.dumps([1])),
        ("training_rows.npz", b"\x93NUMPY"),
        ("training_rows.npz", b"PK\x03\x04"),
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
