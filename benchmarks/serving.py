"""Compare `registry-tools serve` with `mlflow models serve`, a Flask app and bare ASGI.

All servers serve the same version of one registry. Each server in turn runs on one core, and wrk on the
other core; wrk compares each response. The results are ratios of medians over the rounds, because
machines differ.

    python benchmarks/serving.py [ROUNDS]        needs wrk and taskset: apt-get install wrk
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pairs import machine

HERE = Path(__file__).parent
BIN = Path(sys.prefix, "bin")
ROW = [6.0, 2.5, 4.5, 1.5]
ROWS = 10_000
SECONDS = 4

Measured = dict[tuple[str, str], list[dict[str, float]]]


@dataclass(frozen=True)
class Load:
    """The requests of one measurement: a body with a content type, a path, and the connections."""

    title: str
    connections: int
    path: str
    kind: str
    body: Path
    wanted: Path


@dataclass(frozen=True)
class Server:
    """A server: its command for a port, its cores, and the loads to measure."""

    title: str
    argv: Callable[[int], list[str]]
    loads: list[Load]
    cores: str = "0"
    wrk_cores: str = "1"


def main(rounds: int) -> int:
    """Run the measurements, print the ratios, and return 1 if a target is missed."""
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            print(f"{tool} is missing: apt-get install wrk util-linux", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = _registry(folder)
        servers = _servers(folder)
        measured: Measured = defaultdict(list)
        for _ in range(rounds):
            # "ours, new version" needs a new trial in each round, and "ours" reuses that trial.
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for server in servers:
                _measure(server, environment, measured)
    print(f"{machine()}; medians of {rounds} rounds; every response as wanted\n")
    return _report(measured)


def _registry(folder: Path) -> dict[str, str]:
    """Train one version into a registry in the folder, and export it for the other servers."""
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(HERE.parent),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    for command in (
        [BIN / "python", "-m", "pipeline", "train", "--stage", "production"],
        [BIN / "registry-tools", "export", "iris@production", "-o", "model.joblib"],
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return environment


def _servers(folder: Path) -> list[Server]:
    columns = [f"{part} {side} (cm)" for part in ("sepal", "petal") for side in ("length", "width")]
    one = {"dataframe_split": {"columns": columns, "data": [ROW]}}
    many = {"dataframe_split": {"columns": columns, "data": [ROW] * ROWS}}
    csv = "\n".join([",".join(columns), *[",".join(map(str, ROW))] * ROWS]) + "\n"
    predictions = json.dumps({"predictions": [1] * ROWS}).replace(" ", "")

    def file(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        return path

    first = file("one.json", json.dumps(one)), file("one.txt", '{"predictions":[1]}')
    lesson = file("row.json", json.dumps({"features": ROW})), file("row.txt", '{"prediction":1}')
    wanted = file("many.txt", predictions)
    kind, path = "application/json", "/invocations"
    busy = Load("one row, 32 connections", 32, path, kind, *first)
    calm = Load("one row, 1 connection", 1, path, kind, *first)
    busier = Load("one row, 64 connections", 64, path, kind, *first)
    large = Load("10,000 rows, split", 4, path, kind, file("many.json", json.dumps(many)), wanted)
    table = Load("10,000 rows, CSV", 4, path, "text/csv", file("many.csv", csv), wanted)
    simple = Load(busy.title, 32, "/predict", kind, *lesson)

    def ours(*options: str) -> Callable[[int], list[str]]:
        command = [str(BIN / "registry-tools"), "serve", "iris@production", *options]
        return lambda port: [*command, "--port", str(port)]

    def mlflow(workers: int) -> Callable[[int], list[str]]:
        command = [str(BIN / "mlflow"), "models", "serve", "-m", "models:/iris@production"]
        options = ["--env-manager", "local", "--workers", str(workers), "--port"]
        return lambda port: [*command, *options, str(port)]

    def peer(name: str) -> Callable[[int], list[str]]:
        command = [sys.executable, str(HERE / "peers" / name), str(folder / "model.joblib")]
        return lambda port: [*command, str(port)]

    both = {"cores": "0,1", "wrk_cores": "0,1"}
    logged = ours("--log-predictions", str(folder / "log"))
    return [
        Server("ours, new version", ours(), [calm]),
        Server("ours", ours(), [busy, calm, large, table]),
        Server("MLflow", mlflow(1), [busy, calm, large, table]),
        Server("Flask", peer("flask_app.py"), [simple]),
        Server("bare ASGI", peer("bare_asgi.py"), [busy]),
        Server("ours, logging", logged, [busy]),
        Server("ours, 2 workers", ours("--workers", "2"), [calm, busier], **both),
        Server("MLflow, 2 workers", mlflow(2), [calm, busier], **both),
    ]


def _measure(server: Server, environment: dict[str, str], measured: Measured) -> None:
    with _running(server, environment) as (port, process, first):
        measured[server.title, "first response"].append({"seconds": first})
        for load in server.loads:
            found = _wrk(load, port, server.wrk_cores)
            if found["wrong"]:
                raise SystemExit(f"{server.title}, {load.title}: {found['wrong']} wrong responses")
            measured[server.title, load.title].append(found)
        measured[server.title, "memory"].append({"bytes": _memory(process)})


@contextlib.contextmanager
def _running(
    server: Server, environment: dict[str, str]
) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """Start a server on its cores; yield its port, its process and the seconds to the first response."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.perf_counter()
    process = subprocess.Popen(
        ["taskset", "-c", server.cores, *server.argv(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        load = server.loads[0]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{load.path}", load.body.read_bytes(), {"Content-Type": load.kind}
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None or time.perf_counter() - began > 60:
                    raise SystemExit(f"{server.title} did not start") from None
                time.sleep(0.02)
        yield port, process, time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wrk(load: Load, port: int, cores: str) -> dict[str, float]:
    done = subprocess.run(
        [
            *("taskset", "-c", cores, "wrk", "-t1", f"-c{load.connections}"),
            *(f"-d{SECONDS}s", "--timeout", "20s", "-s", str(HERE / "serving.lua")),
            *(f"http://127.0.0.1:{port}{load.path}", "--"),
            *(load.kind, str(load.body), str(load.wanted)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _memory(process: subprocess.Popen[bytes]) -> int:
    """Return the memory of all processes of a server in bytes; a shared page counts once."""
    total = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if os.getpgid(int(entry.name)) == process.pid or _leader(entry) == process.pid:
                shares = (entry / "smaps_rollup").read_text().partition("\nPss:")[2]
                total += int(shares.split()[0]) << 10
    return total


def _leader(entry: Path) -> int:
    """Return the parent of a process, because the workers of some servers have their own group."""
    return int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _report(measured: Measured) -> int:
    def of(server: str, what: str, metric: str) -> float:
        return statistics.median(each[metric] for each in measured[server, what])

    busy, calm, busier = (f"one row, {n}" for n in ("32 connections", "1 connection", "64 connections"))
    split, table = "10,000 rows, split", "10,000 rows, CSV"
    two, mlflow2 = "ours, 2 workers", "MLflow, 2 workers"
    lines = [
        # load, metric, our server, the other server, target ratio, and whether it is a minimum or maximum
        (busy, "rate", "ours", "MLflow", 40, "least"),
        (busy, "rate", "ours", "Flask", 6, "least"),
        (busy, "rate", "ours", "bare ASGI", 0.65, "least"),
        (busy, "p99", "ours", "MLflow", 1 / 50, "most"),
        (calm, "p50", "ours", "MLflow", 1 / 9, "most"),
        (split, "rate", "ours", "MLflow", 6, "least"),
        (table, "rate", "ours", "MLflow", 2, "least"),
        (calm, "p50", two, "ours", 1.3, "most"),
        (busier, "rate", two, mlflow2, 40, "least"),
        ("memory", "bytes", "ours", "MLflow", 0.65, "most"),
        ("first response", "seconds", "ours", "MLflow", 0.6, "most"),
        ("first response", "seconds", "ours, new version", "MLflow", 0.75, "most"),
        (busy, "rate", "ours, logging", "ours", 0.85, "least"),
    ]
    missed = 0
    print(f"{'':<28}{'':<12}{'this':>12}  {'against':<18}{'':>12} {'ratio':>9}  wanted")
    for what, metric, this, that, wanted, bound in lines:
        a, b = of(this, what, metric), of(that, what, metric)
        ratio = a / b
        met = ratio >= wanted if bound == "least" else ratio <= wanted
        missed += not met
        print(
            f"{what:<28}{_NAMES[metric]:<12}{_shown(a, metric):>12}  {that:<18}"
            f"{_shown(b, metric):>12} {ratio:>9.3g}  at {bound} {wanted:.3g}: "
            f"{'met' if met else 'MISSED'}{'' if this == 'ours' else f' ({this})'}"
        )
    print(
        f"\nfor information: {mlflow2}, {calm}: p50 "
        f"{_shown(of(mlflow2, calm, 'p50'), 'p50')}; {two}: {_shown(of(two, calm, 'p50'), 'p50')}"
    )
    return 1 if missed else 0


_NAMES = {"rate": "requests/s", "p50": "p50", "p99": "p99", "bytes": "memory", "seconds": "time"}


def _shown(value: float, metric: str) -> str:
    if metric in {"p50", "p99"}:
        return f"{value * 1000:.2f} ms"
    if metric == "bytes":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.2f} s" if metric == "seconds" else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
