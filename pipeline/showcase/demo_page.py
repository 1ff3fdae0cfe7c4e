"""The web page of the demo: rewritten after each step, and served on this machine only."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.showcase.load_generator import LoadGenerator
from registry_tools.files.temp_files import atomic_write
from registry_tools.reports.render import render

PAGE = "index.html"


@dataclass(frozen=True)
class DemoStep:
    """One step of the demo on the page."""

    at: int  # seconds since the start of the demo
    title: str
    command: str
    output: tuple[str, ...]
    tone: str  # `good`, `bad` or nothing


@dataclass
class DemoPage:
    """The content of the page, and the folder to which it is written."""

    folder: Path
    server: str = ""
    lamp: str = "the lamp is the same as in training"
    ended: bool = False
    steps: list[DemoStep] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    traffic: LoadGenerator | None = None
    began: float = field(default_factory=time.monotonic)

    def add(self, title: str, command: str, output: str, tone: str) -> DemoStep:
        """Add a step, write the page, and return the step."""
        lines = tuple(filter(str.strip, output.splitlines()))
        step = DemoStep(int(time.monotonic() - self.began), title, command, lines, tone)
        self.steps.append(step)
        self.write()
        return step

    def write(self) -> None:
        """Write the page atomically."""
        now, here = datetime.now(timezone.utc), Path(__file__).parent
        text = render("demo_page.html", now, here, page=self)
        with atomic_write(self.folder / PAGE) as part:
            part.write_text(text, encoding="utf-8")


class _SilentRequests(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, because the browser requests the page every second."""


@contextmanager
def serve_page(page: DemoPage, port: int) -> Iterator[str]:
    """Serve the folder of a page on 127.0.0.1 until the body ends; yield the address."""
    handler = functools.partial(_SilentRequests, directory=str(page.folder))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
