"""Evidence that was swapped, removed or added after registration is refused wherever it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import VerificationError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.models import manifest
from registry_tools.models.evidence import (
    Evaluation,
    read_evaluation,
    read_holdout,
    read_recorded_predictions,
    write_evaluation,
)
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.policy.tag_names import DIGEST_TAG, EVIDENCE_DIGEST_TAG
from registry_tools.promotion import history
from registry_tools.refs import parse_ref
from tests.support.constants import LONG
from tests.support.registries import GOOD, Place, evidence_folder


def error_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 1) -> str:
    assert main(argv) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    return err


def _flatter(path: Path) -> None:
    """Label each held-out row as the model predicts it."""
    table = pd.read_parquet(path)
    table.assign(species="setosa").to_parquet(path, index=False)


def _forget_rows(path: Path) -> None:
    with np.load(path) as content:
        np.savez(path, **{**content, "hashes": np.empty(0, np.uint64)})


DIFFERS = "the evidence differs from its manifest: evidence"
SWAPS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "holdout": ("holdout.parquet", _flatter, "was changed"),
    "training rows": ("training_rows.npz", _forget_rows, "was changed"),
    "predictions": ("recorded_predictions.json", lambda p: p.write_text(p.read_text() + " "), "was changed"),
    "baseline": ("baseline.json", lambda p: p.write_text(p.read_text() + " "), "was changed"),
    "removed": ("training_rows.npz", Path.unlink, "is missing"),
    "added": ("more.npy", lambda p: p.write_bytes(b"more"), "was added"),
}


@pytest.fixture(scope="module")
def name(sqlite_place: Place) -> str:
    """A model whose second version has a run, and so evidence, of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(sqlite_place.files)
        patch.setenv("MLFLOW_TRACKING_URI", sqlite_place.uri)
        made = sqlite_place.model(GOOD)
        train(TrainParams(name=made, model="knn", plots=False))
    return made


@pytest.mark.parametrize("swap", SWAPS)
def test_evidence_that_was_changed_is_named_by_the_integrity_gate(
    local: Place, name: str, swap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, change, phrase = SWAPS[swap]
    path = evidence_folder(local, name, 2) / file
    before = path.read_bytes() if path.is_file() else None
    change(path)
    try:
        refused = f"integrity: {DIFFERS}/{file} {phrase}; restore the files, or register the model again"
        assert refused in error_of(capsys, "promote", f"{name}/2", "--to", "production", "--dry-run", code=3)
        assert refused in error_of(capsys, "verify", f"{name}/2")
        assert main(["compare", f"{name}/1", f"{name}/2"]) == 0
        assert f"not compared on the same rows: {name} version 2: {DIFFERS}/{file}" in capsys.readouterr().out
    finally:
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
    assert main(["verify", f"{name}/2"]) == 0


@LONG
@pytest.mark.slow
def test_a_rollback_to_a_version_with_changed_evidence_is_refused(
    local: Place, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = ["--new-stage", "canary", "--force", "--reason", "a test"]
    for version in (2, 1):
        assert main(["promote", f"{name}/{version}", *stage]) == 0
    path = evidence_folder(local, name, 2) / "holdout.parquet"
    before = path.read_bytes()
    _flatter(path)
    capsys.readouterr()
    assert main(["rollback", name, "--stage", "canary", "--reason", "worse"]) != 0
    assert f"{DIFFERS}/holdout.parquet was changed; restore" in "".join(capsys.readouterr())
    assert history.stage_entry(local.client, name, "canary").version == 1  # type: ignore[union-attr]
    path.write_bytes(before)


def test_a_manifest_that_was_changed_with_its_files_has_not_the_digest_of_the_version(
    local: Place, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evidence_folder(local, name, 2)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    model = manifest.read_manifest(folder)
    assert model is not None
    _flatter(folder / "holdout.parquet")
    manifest.write_manifest(folder, model.model)
    assert "evidence/manifest.json was changed: its digests differ" in error_of(capsys, "verify", f"{name}/2")
    (folder / "manifest.json").unlink()
    assert "evidence/manifest.json is missing" in error_of(capsys, "verify", f"{name}/2")
    for path, content in kept.items():
        path.write_bytes(content)
    assert main(["verify", f"{name}/2"]) == 0


def test_a_version_whose_digest_tags_were_removed_is_refused(
    local: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD)
    assert main(["verify", f"{name}/1"]) == 0
    kept = local.version(name, 1).tags
    both = (EVIDENCE_DIGEST_TAG, DIGEST_TAG)
    for removed in (both[1:], both[:1], both):
        for tag in both:
            local.client.set_model_version_tag(name, "1", tag, kept[tag])
        for tag in removed:
            local.client.delete_model_version_tag(name, "1", tag)
        refused = "integrity: the digest tags of the version were removed; restore artifact_digest and"
        assert refused in error_of(capsys, "verify", f"{name}/1")
        assert refused in error_of(capsys, "promote", f"{name}/1", "--to", "production", code=3)
    fetcher = ArtifactFetcher(parse_ref(f"{name}/1"), TrustPolicy(), local.uri, None)
    with pytest.raises(VerificationError, match="digest tags of the version were removed"):
        fetcher.fetch(fetcher.resolve())
    fetcher.close()
    assert load_model(f"{name}/1", tracking_uri=local.uri).info.version == 1  # downloads no evidence


def test_recorded_predictions_that_were_changed_are_not_served(
    local: Place, name: str, tmp_path: Path
) -> None:
    folder = evidence_folder(local, name, 2)
    recorded = folder / "recorded_predictions.json"
    before = recorded.read_bytes()
    recorded.write_bytes(before + b" ")
    fetcher = ArtifactFetcher(parse_ref(f"{name}/2"), TrustPolicy(), local.uri, None)
    with pytest.raises(VerificationError, match=r"recorded_predictions\.json was changed; restore"):
        fetcher.fetch(fetcher.resolve())
    recorded.write_bytes(before)
    assert fetcher.fetch(fetcher.resolve()).recorded_predictions.is_file()
    fetcher.close()


def test_a_version_whose_evidence_is_gone_is_served_and_not_promoted(
    local: Place, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evidence_folder(local, name, 2)
    folder.rename(tmp_path / "kept")  # as `mlflow gc` does with a deleted run
    fetcher = ArtifactFetcher(parse_ref(f"{name}/2"), TrustPolicy(), local.uri, None)
    assert not fetcher.fetch(fetcher.resolve()).recorded_predictions.is_file()
    fetcher.close()
    refusal = error_of(capsys, "promote", f"{name}/2", "--to", "production", "--dry-run", code=3)
    (tmp_path / "kept").rename(folder)
    assert (
        "integrity: evidence/manifest.json is missing or not readable: restore it, or register the model"
        in refusal
    )


def test_a_version_carries_the_digest_of_its_evidence(local: Place, name: str) -> None:
    folder = evidence_folder(local, name, 2)
    tags = local.version(name, 2).tags
    assert tags[EVIDENCE_DIGEST_TAG] == manifest.digest_of(manifest.evidence_of(folder))
    listed = manifest.read_manifest(folder)
    assert listed is not None
    assert set(listed.evidence) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert read_holdout(folder) is not None


@pytest.mark.parametrize(
    ("rows", "columns", "message"), [(100_001, 1000, "has 100,001,000 values"), (1, 1, "without features")]
)
def test_a_holdout_of_very_many_values_is_refused(
    rows: int, columns: int, message: str, tmp_path: Path
) -> None:
    value = pa.chunked_array([pa.nulls(rows)])
    table = pa.Table.from_arrays([value] * columns, [str(index) for index in range(columns)])
    pq.write_table(table, tmp_path / "holdout.parquet")
    with pytest.raises(VerificationError, match=rf"evidence/holdout\.parquet .*{message}"):
        read_holdout(tmp_path)


def test_recorded_predictions_of_very_many_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recorded_predictions.json").write_bytes(b" " * ((64 << 20) + 1))
    with pytest.raises(VerificationError, match="has 67,108,865 bytes, and at most"):
        read_recorded_predictions(tmp_path)


def test_the_metric_that_a_training_chose_is_read_from_the_evidence(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None
    chosen = Evaluation("regression", "mae")
    write_evaluation(tmp_path, chosen)
    assert read_evaluation(tmp_path) == chosen


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"task": "ranking", "metric": "mae"}',
        '{"task": [], "metric": "mae"}',
        '{"task": "regression"}',
        '{"task": "regression", "metric": 1}',
    ],
)
def test_an_evaluation_that_is_not_readable_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(VerificationError, match=r"^evidence/evaluation\.json is not readable: "):
        read_evaluation(tmp_path)
