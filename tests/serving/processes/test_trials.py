"""A version that crashes, hangs or takes all memory ends its trial, and not the server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import joblib
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression

from registry_tools.mlflow_store import stages
from registry_tools.models.trust_policy import TRUSTED_TYPES
from registry_tools.serving.rollout.trials import trials_folder
from tests.support.constants import IRIS_ROW, LONG
from tests.support.registries import GOOD, POOR, Change, Place, crafted
from tests.support.servers import BIN, eventually
from tests.support.serving import Serve, end, server_processes, versions

pytestmark = pytest.mark.slow


class Crashing(ClassifierMixin, BaseEstimator):
    """Ends its process in the middle of a prediction."""

    def predict(self, rows: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)


class Endless(ClassifierMixin, BaseEstimator):
    """Never returns."""

    def predict(self, rows: Any) -> Any:
        while True:
            pass


class Exploding(ClassifierMixin, BaseEstimator):
    """Takes gigabytes."""

    def predict(self, rows: Any) -> Any:
        return np.ones(1 << 33, np.uint8)


class Wrapping(ClassifierMixin, BaseEstimator):
    """Predicts as the model that it wraps; uses BLAS and Arrow, and less memory than is allowed."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def predict(self, rows: Any) -> Any:
        square = np.ones((2000, 2000))
        assert (square @ square)[0, 0] == 2000
        assert len(pa.array(np.arange(5_000_000))) == 5_000_000
        return self.inner.predict(rows)

    def predict_proba(self, rows: Any) -> Any:
        return self.inner.predict_proba(rows)


class CrashingLater(Wrapping):
    """Predicts in its trial, which leads a session, and ends any other process."""

    def predict(self, rows: Any) -> Any:
        if os.getsid(0) != os.getpid():
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().predict(rows)


class Parallel(Wrapping):
    """Predicts in jobs that run at the same time."""

    def predict(self, rows: Any) -> Any:
        pids = joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(4))
        assert set(pids) == {os.getpid()}
        return self.inner.predict(rows)


def pickled(kind: type[BaseEstimator]) -> Change:
    """Return a change of a version that makes this estimator of it."""

    def change(folder: Path, content: dict[str, Any]) -> None:
        inner = skops.io.load(folder / "model.skops", trusted=list(TRUSTED_TYPES))
        estimator = kind(inner) if issubclass(kind, Wrapping) else kind()
        cloudpickle.register_pickle_by_value(__import__(__name__, fromlist=["x"]))
        (folder / "model.pkl").write_bytes(cloudpickle.dumps(estimator))
        flavors = {
            "sklearn": {"serialization_format": "cloudpickle", "pickled_model": "model.pkl"},
            "python_function": {
                **content["flavors"]["python_function"],
                "loader_module": "mlflow.sklearn",
                "model_path": "model.pkl",
            },
        }
        content["flavors"] = flavors

    return change


@LONG
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Crashing, "SIGSEGV"),
        (Endless, "does not load within 2 s of processor time: see --trial-seconds"),
        (Exploding, "needs more than 1,024 MiB of memory: see --trial-memory"),
    ],
)
def test_a_version_that_fails_its_trial_does_not_take_over(
    serve: Serve, local: Place, kind: type[BaseEstimator], reason: str
) -> None:
    name = crafted(local, pickled(kind)).partition("/")[0]
    stages.move_alias(local.client, name, "production", 1)
    options = ("--trial-memory", "1024", "--trial-seconds", "2", "--allow-code")
    client = serve(f"{name}@production", *options)
    before = server_processes(client)
    stages.move_alias(local.client, name, "production", 2)
    eventually(lambda: client.get("/model").json()["candidate"] is not None)
    assert reason in client.get("/model").json()["candidate"]["error"]
    assert client.post("/predict", json={"features": IRIS_ROW}).json()["prediction"] == "versicolor"
    eventually(lambda: server_processes(client) == before)


@LONG
def test_a_version_that_passes_its_trial_and_ends_workers_does_not_take_over(
    serve: Serve, local: Place
) -> None:
    name = crafted(local, pickled(CrashingLater)).partition("/")[0]
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--allow-code")
    stages.move_alias(local.client, name, "production", 2)

    def served() -> int:
        try:
            reply = client.post("/predict", json={"features": IRIS_ROW})
        except httpx.TransportError:
            return 0
        return int(reply.headers["x-model-version"])

    def is_refused() -> bool:
        with contextlib.suppress(httpx.TransportError):
            candidate = client.get("/model").json()["candidate"]
            return candidate is not None and "crashed 2 processes" in candidate["error"]
        return False

    eventually(is_refused)
    assert served() == 1


@LONG
def test_jobs_of_a_model_take_threads_and_no_processes(serve: Serve, local: Place) -> None:
    name = crafted(local, pickled(Parallel)).partition("/")[0]
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--allow-code")
    stages.move_alias(local.client, name, "production", 2)
    eventually(lambda: client.get("/model").json()["version"] == 2)


@LONG
def test_a_version_within_its_limits_passes_its_trial_with_blas_and_arrow(serve: Serve, local: Place) -> None:
    name = crafted(local, pickled(Wrapping)).partition("/")[0]
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--trial-memory", "512", "--allow-code")
    stages.move_alias(local.client, name, "production", 2)
    eventually(lambda: client.get("/model").json()["version"] == 2)


@LONG
def test_a_version_that_has_passed_is_not_tried_again(
    serve: Serve, local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = local.model(GOOD, POOR)
    logs = []
    for options in ((), (), ("--trial-seconds", "30")):
        client = serve(f"{name}/1", *options)
        end(client)
        logs.append((tmp_path / f"process-{len(logs)}.log").read_text())
    # Other limits need another trial.
    assert ["passed its trial" in log for log in logs] == [True, False, True]


def test_the_log_says_that_a_version_has_no_recorded_predictions(
    serve: Serve, local: Place, tmp_path: Path
) -> None:
    table = pd.DataFrame({"a": np.arange(9.0)})
    mlflow.set_tracking_uri(local.uri)
    for name, example in (("with-example", table[:2]), ("without", None)):
        signature = infer_signature(table, table["a"])
        with mlflow.start_run():
            model = LinearRegression().fit(table, table["a"])
            mlflow.sklearn.log_model(
                model, name="model", registered_model_name=name, signature=signature, input_example=example,
                pip_requirements=[],
            )  # fmt: skip
        end(serve(f"{name}/1"))
    logs = [(tmp_path / f"process-{number}.log").read_text() for number in (0, 1)]
    assert "has no recorded predictions: it was tried on its input example" in logs[0]
    assert "has no example, so that its predictions were not tried" in logs[1]


def test_two_workers_have_a_version_tried_once(
    serve: Serve, local: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = local.model(GOOD, POOR)
    stages.move_alias(local.client, name, "production", 1)
    client = serve(f"{name}@production", "--workers", "2", "--shadow", f"{name}@production")
    stages.move_alias(local.client, name, "production", 2)
    eventually(lambda: versions(client) == {2})
    end(client)
    log = (tmp_path / "process-0.log").read_text()
    assert [log.count(f"version {version} passed its trial") for version in (1, 2)] == [1, 1]


def test_passed_trials_are_kept_in_a_folder_of_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = tmp_path / "registry-tools" / "trials"
    assert trials_folder(tmp_path / "other") == own
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o755)
    assert trials_folder(tmp_path / "other") == tmp_path / "other"
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o700


@LONG
def test_a_first_version_that_fails_its_trial_is_an_error_of_one_line(local: Place) -> None:
    ref = crafted(local, pickled(Crashing))
    done = subprocess.run(
        [BIN / "registry-tools", "serve", ref, "--allow-code", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "ends its process with SIGSEGV" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
