"""Measure how long a promotion takes to reach traffic after a webhook of a real MLflow server.

    python benchmarks/webhook.py [--rounds 10] [--workers 1]

`mlflow server` sends its webhook to `registry-tools serve --poll 60`. Two versions take over from each other:
by `promote`, and by MLflow's own call that sets the alias. The time ends with the first response of the new
version. It begins when the call returns; `/model` says how much of it the server spent on fetching, trying
and loading. The exit code is 1 if the rest is ever over 300 ms. It is an error if a version does not arrive
within a minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
from mlflow import MlflowClient
from pairs import machine

from registry_tools import promote
from tests.support.servers import BIN, end_group, free_port, wait_until_up
from tests.support.tracking_servers import server_over

MOST_MS = 300
LONGEST = 60.0  # seconds
ROW = {"features": [6.0, 2.5, 4.5, 1.5]}
SECRET = "only-for-a-benchmark"
SETTINGS = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # the server knows the new webhook at once
}


def train(uri: str, folder: Path) -> None:
    """Train and register two versions, of which the first goes to production."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    for options in (("--stage", "production"), ("--model", "knn")):
        subprocess.run(
            [BIN / "python", "-m", "pipeline", "train", "--plots", "false", *options],
            cwd=folder, env=environment, check=True, capture_output=True,
        )  # fmt: skip


def start_server(stack: ExitStack, uri: str, folder: Path, workers: int) -> httpx.Client:
    """Start `registry-tools serve`, and register its webhook with MLflow."""
    (folder / "secret").write_text(SECRET)
    port = free_port()
    process = subprocess.Popen(
        [
            *(BIN / "registry-tools", "serve", "iris@production", "--port", str(port), "--poll", "60"),
            *("--workers", str(workers), "--webhook-secret-file", folder / "secret", "--tracking-uri", uri),
        ],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},  # the first round has trials
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stack.callback(end_group, process)
    address = f"http://127.0.0.1:{port}"
    wait_until_up(f"{address}/ready", process)
    MlflowClient(uri).create_webhook(
        "serving", f"{address}/webhooks/mlflow", ["model_version_alias.created"], secret=SECRET
    )
    return stack.enter_context(httpx.Client(base_url=address, timeout=LONGEST))


def measure(client: httpx.Client, move: Callable[[], object], version: int) -> tuple[float, float]:
    """Move the stage; return the milliseconds until the version responds, in all and without loading it."""
    move()
    moved = time.time()
    while client.post("/predict", json=ROW).headers["x-model-version"] != str(version):
        if time.time() - moved > LONGEST:
            raise SystemExit(f"version {version} did not reach traffic within {LONGEST:g} s")
        time.sleep(0.002)
    arrived = time.time()
    state = client.get("/model").json()
    found, loaded = (
        datetime.fromisoformat(state[name]).timestamp() for name in ("last_registry_response", "loaded_at")
    )
    # The server may have begun before the call returned; only the time after it counts.
    loading = max(loaded - max(found, moved), 0.0)
    return (arrived - moved) * 1000, (arrived - moved - loading) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = f"sqlite:///{folder}/mlflow.db"
        uri = stack.enter_context(server_over(store, folder, "--workers", "1", environment=SETTINGS))
        train(uri, folder)
        client = start_server(stack, uri, folder, options.workers)
        registry = MlflowClient(uri)

        def by_promote(version: int) -> None:
            reason = {"force": True, "reason": "benchmark"}
            promote(f"iris/{version}", "production", tracking_uri=uri, **reason)

        def by_alias(version: int) -> None:
            registry.set_registered_model_alias("iris", "production", str(version))

        times: dict[str, list[tuple[float, float]]] = {"promote": [], "alias": []}
        for _ in range(options.rounds):
            times["promote"].append(measure(client, lambda: by_promote(2), 2))
            times["alias"].append(measure(client, lambda: by_alias(1), 1))
    return report(times)


def report(times: dict[str, list[tuple[float, float]]]) -> int:
    print(f"{machine()}; milliseconds, median (largest)")
    print(f"{'':8}{'first response':>24}{'without loading':>24}   wanted")
    missed = False
    for name, rounds in times.items():
        whole, rest = zip(*rounds, strict=True)
        columns = "".join(f"{statistics.median(each):16.0f} ({max(each):5.0f})" for each in (whole, rest))
        verdict = "met" if max(rest) <= MOST_MS else "MISSED"
        missed |= verdict == "MISSED"
        print(f"{name:8}{columns}   at most {MOST_MS}: {verdict}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
