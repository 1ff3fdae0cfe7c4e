"""Run a command of `registry-tools` as the user of a session, in a process of its own.

Promotions, rollbacks and comparisons download files, for which MLflow uses threads and caches that all users
of a process share. A process of its own has the rights of one user only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from registry_tools.console.problem import Problem
from registry_tools.errors import last_line
from registry_tools.mlflow_store.user_credentials import User, environment

_SECONDS = 600
_AT_ONCE = 2
# For each command: comparisons and promotions must not keep a rollback from running.
_running = {name: threading.BoundedSemaphore(_AT_ONCE) for name in ("promote", "rollback", "compare")}
# Settings without secrets. The credentials that this process may have, for MLflow or for files, stay here.
_KEPT = {
    *("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_DISABLE_TELEMETRY"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SYSTEMROOT"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("REGISTRY_TOOLS_POLICY", "REGISTRY_TOOLS_TRUST", "REGISTRY_TOOLS_PUBLIC_KEY"),
    "REGISTRY_TOOLS_LEGACY_STAGES",
}
_STATUS = {2: 400, 3: 403}  # by exit code: usage, refused; else 409


def run(user: User | None, address: str, command: str, *arguments: str) -> Any:
    """Run a command with `--json`, and return its result.

    Raises
    ------
    Problem
        If the command fails, with its error line; if a gate refused, also with the gates. If it already
        runs too often.
    """
    if not _running[command].acquire(blocking=False):
        raise Problem(503, f"{_AT_ONCE} users of this console run {command} now: try again in a minute")
    try:
        done = _run(user, address, (command, *arguments))
    finally:
        _running[command].release()
    if done.returncode == 0:
        return json.loads(done.stdout)
    message = last_line(done.stderr, "the command ended without a message")
    # A refused promotion prints its verdict. Other failures may cut the output.
    gates = json.loads(done.stdout)["verdict"]["gates"] if done.returncode == 3 and done.stdout else ()
    raise Problem(_STATUS.get(done.returncode, 409), message.partition("error: ")[2] or message, gates)


def comparison(user: User | None, address: str, first: str, second: str) -> str:
    """Return the comparison of two versions as a self-contained page."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "comparison.html")
        run(user, address, "compare", "--html", str(path), "--", first, second)
        return path.read_text(encoding="utf-8")


def _run(user: User | None, address: str, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if name in _KEPT}
    with tempfile.TemporaryDirectory() as home:  # without the files of this user's own credentials
        try:
            return subprocess.run(
                [sys.executable, "-m", "registry_tools", "--json", "--tracking-uri", address, *arguments],
                env={**kept, **environment(user), "HOME": home},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise Problem(504, f"the command did not end within {_SECONDS} s: see the history") from error
