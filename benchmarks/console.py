"""Measure the pages of the console on a model with 10 and with 10,000 versions and as many events.

    python benchmarks/console.py [--rounds 20]

Each model is behind an `mlflow server` on SQLite with a console, and the pages are asked for in turn. The
program fails if the median time of a page is longer than 300 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pairs import machine
from registry_scale import BIN, make_store

LONGEST = 0.3  # seconds
SIZES = (10, 10_000)
PAGES = {
    "models": "/",
    "model": "/models/iris",
    "requests": "/requests",
    "history of a stage": "/models/iris/stages/production",
    "version for a stage": "/models/iris/versions/1/production",
}
# A policy, so that the pages also look for requests. Nobody needs its key here.
POLICY = """
registry: benchmark
evaluators:
  ci: |
    -----BEGIN PUBLIC KEY-----
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
    -----END PUBLIC KEY-----
models:
  "iris":
    production: {evaluators: [ci], approvals: {count: 1, by: [ana, ben]}}
"""


def add_requests(folder: Path) -> None:
    """Give each version an old request, and the newest fifty an open one."""
    database = sqlite3.connect(folder / "mlflow.db")
    with database:
        database.execute(
            "INSERT INTO registered_model_tags (name, key, value, workspace) "
            "SELECT name, 'head.production', '1', workspace FROM registered_models"
        )
        for condition, head in (("true", 0), ("version > (SELECT max(version) - 50 FROM model_versions)", 1)):
            request = {"reason": "better", "digest": "x", "head": head, "verdict": "y", "by": "eve"}
            database.execute(
                "INSERT OR REPLACE INTO model_version_tags (name, version, key, value, workspace) "
                "SELECT name, version, 'request.production', ?, workspace FROM model_versions "
                f"WHERE {condition}",
                (json.dumps(request),),
            )
    database.close()


@contextlib.contextmanager
def serving(folder: Path, *command: str) -> Iterator[str]:
    """Run a server until the body ends; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers(f"{address}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit((folder / "server.log").read_text()[-2000:])
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Return whether a server answers at an address."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        raise
    except OSError:
        return False


def seconds(url: str) -> float:
    """Return the time until a page is read."""
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as response:
        response.read()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    times: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as running:
        addresses = {}
        for size in SIZES:
            folder = Path(scratch, str(size))
            make_store(folder, size)
            add_requests(folder)
            (folder / "registry.yaml").write_text(POLICY)
            store = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1")
            mlflow = running.enter_context(serving(folder, str(BIN / "mlflow"), "server", *store))
            console = (str(BIN / "registry-tools"), "console", "--tracking-uri", mlflow)
            addresses[size] = running.enter_context(serving(folder, *console))
        for number in range(rounds + 1):
            for title, path in PAGES.items():
                for size in SIZES:
                    taken = seconds(f"{addresses[size]}{path}")
                    if number:  # the first round fills caches
                        times.setdefault((title, size), []).append(taken)
    print(machine())
    print(
        f"{'milliseconds, median of ' + str(rounds):30}"
        + "".join(f"{size:>10,}" for size in SIZES)
        + "   slowest"
    )
    worst = 0.0
    for title in PAGES:
        medians = [statistics.median(times[title, size]) for size in SIZES]
        worst = max(worst, medians[-1])
        cells = "".join(f"{median * 1000:10.0f}" for median in medians)
        print(f"{title:30}{cells}{max(times[title, SIZES[-1]]) * 1000:10.0f}")
    print(f"each page within {LONGEST * 1000:.0f} ms: {'met' if worst <= LONGEST else 'MISSED'}")
    sys.exit(worst > LONGEST)


if __name__ == "__main__":
    main()
