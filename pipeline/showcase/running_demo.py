"""The demo while it runs, and its web page: rewritten after each step, served on this machine only."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.showcase.load_generator import LoadGenerator
from pipeline.showcase.servers import run_module
from registry_tools.files.temp_files import atomic_write
from registry_tools.reports.render import render

PAGE = "index.html"
Echo = Callable[[str], None]


@dataclass(frozen=True)
class DemoStep:
    """One step of the demo on the page."""

    at: int  # seconds since the start of the demo
    title: str
    command: str
    output: list[str]
    tone: str  # `good`, `bad` or nothing


@dataclass
class RunningDemo:
    """The state that the steps share and the page shows."""

    folder: Path
    environment: dict[str, str]
    echo: Echo
    server: str = ""
    lamp: str = "the lamp is the same as in training"
    ended: bool = False
    steps: list[DemoStep] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    traffic: LoadGenerator | None = None
    began: float = field(default_factory=time.monotonic)

    def run(self, title: str, *arguments: str, exit_code: int = 0) -> str:
        """Run a command of this project, report it, and return its output.

        Raises
        ------
        PipelineError
            If the exit code differs from `exit_code`.
        """
        typed = f"python -m {' '.join(arguments)}"
        done = run_module(arguments, self.folder, self.environment)
        tone = {0: "good", 4: "bad"}.get(exit_code, "")
        output = done.stdout if done.returncode == exit_code else done.stdout + done.stderr
        self.report_step(title, f"{typed}   → exit {done.returncode}", output, tone)
        if done.returncode != exit_code:
            raise PipelineError(f"{typed}: exit code {done.returncode} instead of {exit_code}")
        return done.stdout

    def report_step(self, title: str, command: str = "", output: str = "", tone: str = "") -> None:
        """Report a step in the terminal and on the page."""
        lines, at = [*filter(str.strip, output.splitlines())], int(time.monotonic() - self.began)
        self.steps.append(DemoStep(at, title, command, lines, tone))
        self.write_page()
        self.echo(f"{at:4d} s  {title}")
        for line in filter(None, [command, *lines]):
            self.echo(f"        {line}")

    def write_page(self) -> None:
        """Write the page atomically."""
        now, here = datetime.now(timezone.utc), Path(__file__).parent
        text = render("demo_page.html", now, here, demo=self)
        with atomic_write(self.folder / PAGE) as part:
            part.write_text(text, encoding="utf-8")


class _SilentRequests(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, because the browser requests the page every second."""


@contextmanager
def serve_page(folder: Path, port: int) -> Iterator[str]:
    """Serve the folder of a demo on 127.0.0.1 until the body ends; yield the address."""
    handler = functools.partial(_SilentRequests, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
