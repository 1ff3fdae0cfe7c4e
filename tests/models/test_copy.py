"""Versions copied between two real registries."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from registry_tools import load_model
from registry_tools.cli.main import main
from registry_tools.errors import PromotionError, VerificationError
from registry_tools.evaluation.gate_options import GateOptions
from registry_tools.mlflow_store import registry, runs
from registry_tools.mlflow_store.client import connect
from registry_tools.models import artifacts, copy, manifest
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.promotion import promote, recovery
from registry_tools.refs import ModelRef, parse_ref
from tests.support.commands import run
from tests.support.constants import LONG
from tests.support.registries import EQUAL, GOOD, Place, crafted, on_server
from tests.support.servers import BIN
from tests.support.signing_keys import write_keys
from tests.support.tracking_servers import server


@pytest.fixture(scope="session")
def other_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("other")
    with server(empty_database, folder) as uri:
        yield Place(uri, folder / "artifacts")


@pytest.fixture
def sqlite_target(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("target")
    shutil.copy(empty_database, folder / "mlflow.db")
    return Place(f"sqlite:///{folder}/mlflow.db", folder)


@pytest.fixture
def target(place: Place, request: pytest.FixtureRequest) -> Place:
    """Another registry: an SQLite store beside an SQLite store, a server beside a server."""
    other = "other_server" if place.uri.startswith("http") else "sqlite_target"
    found: Place = request.getfixturevalue(other)
    return found


def run_states(target: Place, name: str) -> list[str]:
    found = target.client.get_experiment_by_name(name)
    assert found is not None
    return [run.info.status for run in target.client.search_runs([found.experiment_id])]


@LONG
@pytest.mark.slow
@on_server
def test_a_copy_has_metrics_tags_evidence_and_signature(place: Place, target: Place, tmp_path: Path) -> None:
    name = place.model(GOOD, EQUAL)
    promote.promote(place.client, ModelRef(name, version=1), "production", GateOptions())
    write_keys(tmp_path, "ours")
    assert main(["sign", f"{name}/1", "--key", "ours.pem"]) == 0
    place.client.set_model_version_tag(name, "1", "verdict.production", "for this registry only")
    copied = copy.copy(place.client, ModelRef(name, stage="production"), target.client)
    assert (copied.name, copied.version, copied.made) == (name, 1, True)

    sent, arrived = place.version(name, 1), target.version(name, 1)
    assert arrived.stages == ()
    assert arrived.metrics == sent.metrics
    assert arrived.params == sent.params
    assert arrived.description == sent.description
    assert arrived.digest == sent.digest is not None
    tags = {key: text for key, text in sent.tags.items() if key != "verdict.production"}
    assert dict(arrived.tags) == {**tags, "origin": copied.origin}
    assert copied.origin.startswith(f"{place.uri} {name}/1 ")
    with (
        artifacts.evidence_files(place.client, sent) as original,
        artifacts.evidence_files(target.client, arrived) as copied_evidence,
    ):
        assert original is not None
        assert copied_evidence is not None
        names = sorted(path.name for path in original.iterdir())
        assert sorted(path.name for path in copied_evidence.iterdir()) == names
        assert {"holdout.parquet", "manifest.json"} < set(names)
        assert manifest.read_manifest(copied_evidence) == manifest.read_manifest(original)
    run = target.client.get_run(str(arrived.run_id))
    assert run.info.status == "FINISHED"
    assert sorted(each.dataset.name for each in run.inputs.dataset_inputs) == [
        "iris-holdout",
        "iris-training",
    ]

    model = load_model(f"{name}/1", tracking_uri=target.uri, public_key="ours.pub.pem")
    assert model.predict_names([[6.0, 2.5, 4.5, 1.5]]).tolist() == ["versicolor"]
    assert recovery.verify(target.client, ModelRef(name, version=1), TrustPolicy()).passed
    mlflow.set_tracking_uri(target.uri)
    served = mlflow.pyfunc.load_model(f"models:/{name}/1")
    assert served.metadata.get_input_schema() is not None

    # The gates treat it as a version that was trained there.
    copy.copy(place.client, ModelRef(name, version=2), target.client)
    promote.promote(target.client, ModelRef(name, version=1), "production", GateOptions())
    promote.promote(target.client, ModelRef(name, version=2), "production", GateOptions())
    assert target.holder(name) == 2


def test_a_second_copy_changes_nothing(place: Place, target: Place) -> None:
    name = place.model(GOOD)
    first = copy.copy(place.client, ModelRef(name, version=1), target.client)
    again = copy.copy(place.client, ModelRef(name, version=1), target.client)
    assert (again.version, again.made) == (first.version, False)
    assert len(registry.list_versions(target.client, name)) == 1
    experiment = target.client.get_experiment_by_name(name)
    assert experiment is not None
    assert len(target.client.search_runs([experiment.experiment_id])) == 1


_KILLED = """
import os, signal, sys
from registry_tools.cli.main import main
from registry_tools.mlflow_store import registry, runs

module, name, *argv = sys.argv[1:]

def kill(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

setattr({registry.__name__: registry, runs.__name__: runs}[module], name, kill)
sys.exit(main(argv))
"""


@pytest.mark.slow
@on_server
@pytest.mark.parametrize("step", [runs.add_files, registry.register])
def test_an_interrupted_copy_leaves_no_version_and_can_be_repeated(
    place: Place, target: Place, short_wait: None, step: Callable[..., object]
) -> None:
    name = place.model(GOOD)
    command = ["copy", f"{name}/1", "--to-uri", target.uri]
    done = subprocess.run([sys.executable, "-c", _KILLED, step.__module__, step.__name__, *command])
    assert done.returncode == -signal.SIGKILL
    assert not target.client.search_registered_models(f"name = '{name}'")
    assert main(command) == 0
    assert [v.version for v in registry.list_versions(target.client, name)] == [1]
    assert run_states(target, name) == ["FINISHED"]


@pytest.mark.slow
@on_server
def test_a_copy_interrupted_at_its_end_is_complete(place: Place, target: Place, short_wait: None) -> None:
    name = place.model(GOOD)
    command = ["copy", f"{name}/1", "--to-uri", target.uri]
    done = subprocess.run([sys.executable, "-c", _KILLED, runs.__name__, runs.finish.__name__, *command])
    assert done.returncode == -signal.SIGKILL
    assert main(command) == 0
    assert [v.version for v in registry.list_versions(target.client, name)] == [1]
    assert run_states(target, name) == ["FINISHED"]


@pytest.mark.slow
@on_server
def test_two_copies_at_once_make_one_version(place: Place, target: Place) -> None:
    name = place.model(GOOD)
    command = [BIN / "registry-tools", "copy", f"{name}/1", "--to-uri", target.uri, "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    copies = [json.loads(out) for out, _ in outputs]
    assert len({copied["version"] for copied in copies}) == 1
    assert len(registry.list_versions(target.client, name)) == 1
    assert run_states(target, name) == ["FINISHED"]


def test_runs_copied_at_once_share_their_datasets(place: Place, target: Place) -> None:
    name = place.model(GOOD)
    run_id = str(place.version(name, 1).run_id)
    began = threading.Barrier(8)

    def copy_run(_: int) -> str:
        source, client = place.client, target.client
        began.wait()
        return runs.copy_run(source, run_id, client, name, {})

    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(copy_run, range(8)))
    found = [target.client.get_run(copied).inputs.dataset_inputs for copied in copies]
    assert [[i.dataset.name for i in inputs] for inputs in found] == [["iris-training", "iris-holdout"]] * 8


def test_files_damaged_on_the_way_make_no_version(
    place: Place, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place.model(GOOD)
    add_files = runs.add_files

    def damaging(client: object, run_id: str, folder: Path, where: str) -> str:
        address = add_files(client, run_id, folder, where)  # type: ignore[arg-type]
        if where == "model":
            # A server keeps the artifacts below its own folder.
            root = target.files if address.startswith("mlflow-artifacts") else Path(address)
            (file,) = (p for p in root.rglob("model.skops") if run_id in str(p))
            file.write_bytes(file.read_bytes()[:-1] + b"?")
        return address

    monkeypatch.setattr(runs, add_files.__name__, damaging)
    with pytest.raises(VerificationError, match=r"differ from the source: model\.skops was changed"):
        copy.copy(place.client, ModelRef(name, version=1), target.client)
    assert not target.client.search_registered_models(f"name = '{name}'")


def test_within_one_registry_another_name_is_needed(local: Place, capsys: pytest.CaptureFixture[str]) -> None:
    name = local.model(GOOD)
    with pytest.raises(PromotionError, match=r"already is in .*: give another --name"):
        copy.copy(local.client, ModelRef(name, version=1), local.client)
    command = ["copy", f"{name}/1", "--to-uri", local.uri, "--name", f"{name}-eu"]
    assert main([*command, "--json"]) == 0
    copied = json.loads(capsys.readouterr().out)
    assert (copied["name"], copied["version"], copied["made"]) == (f"{name}-eu", 1, True)
    assert main(command) == 0
    assert capsys.readouterr().out == f"exists already  {name}-eu version 1 in {local.uri}\n"


def test_the_origin_has_no_password() -> None:
    class Client:
        tracking_uri = "https://ada:secret@host:8443/mlflow"

    assert copy._address(Client()) == "https://host:8443/mlflow"  # type: ignore[arg-type]


def test_a_version_whose_files_differ_is_not_copied(
    local: Place, empty_database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.params.definitions import TrainParams
    from pipeline.training.train import train

    name = local.model(GOOD)
    train(TrainParams(plots=False, name=name))
    folder = Path(local.client.get_model_version_download_uri(name, "2"))
    (folder / "more.py").write_text("import os")
    shutil.copy(empty_database, tmp_path / "target.db")
    uri = f"sqlite:///{tmp_path}/target.db"
    assert main(["copy", f"{name}/2", "--to-uri", uri]) == 1
    assert "more.py was added" in capsys.readouterr().err


def test_a_copy_goes_to_the_registry_that_its_option_names(
    local: Place, sqlite_target: Place, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = local.model(GOOD)
    shutil.copy(empty_database, tmp_path / "third.db")
    third = f"sqlite:///{tmp_path}/third.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", third)
    assert main(["copy", f"{name}/1", "--tracking-uri", local.uri, "--to-uri", sqlite_target.uri]) == 0
    assert main(["verify", f"{name}/1", "--tracking-uri", sqlite_target.uri]) == 0
    assert MlflowClient(third, third).search_registered_models() == []
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert sqlite_target.version(name, 1).metrics == local.version(name, 1).metrics


def test_without_an_option_the_registry_is_that_of_mlflow(
    local: Place, sqlite_target: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_target.uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", local.uri)
    assert run(capsys, "show", f"{name}/1")["name"] == name
    # The registry decides what is a copy of what, wherever the runs are.
    runs_elsewhere = connect()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", local.uri)
    with pytest.raises(PromotionError, match=r"already is in .*: give another --name"):
        copy.copy(connect(), ModelRef(name, version=1), runs_elsewhere)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///gone.db")
    assert main(["show", f"{name}/1"]) == 1
    assert "no registry at sqlite:///gone.db" in capsys.readouterr().err


@pytest.mark.slow
def test_a_copy_makes_a_new_sqlite_store_if_its_folder_exists(
    local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = local.model(GOOD)
    assert main(["copy", f"{name}/9", "--to-uri", "sqlite:///new.db"]) == 1
    assert "has no version 9" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["copy", f"{name}/1", "--to-uri", "sqlite:///gone/new.db"]) == 1
    assert f"no folder {tmp_path}/gone to make one in: make the folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["copy", f"{name}/1", "--to-uri", "sqlite:///new.db"]) == 0
    assert capsys.readouterr().out == f"copied  {name} version 1 in sqlite:///new.db\n"
    assert main(["verify", f"{name}/1", "--tracking-uri", "sqlite:///new.db"]) == 0


@pytest.mark.slow
def test_a_file_in_a_folder_of_a_model_is_copied_whatever_its_name(
    local: Place, sqlite_target: Place
) -> None:
    def add_files(folder: Path, content: dict[str, Any]) -> None:
        (folder / "registered_model_meta").write_text("written by MLflow")
        (folder / "words").mkdir()
        (folder / "words" / "registered_model_meta").write_text("of the model")

    ref = crafted(local, add_files)
    copied = copy.copy(local.client, parse_ref(ref), sqlite_target.client)
    with artifacts.model_files(sqlite_target.client, copied.name, copied.version) as folder:
        assert (folder / "words" / "registered_model_meta").read_text() == "of the model"
        assert not (folder / "registered_model_meta").exists()
    load_model(f"{copied.name}/{copied.version}", tracking_uri=sqlite_target.uri)
