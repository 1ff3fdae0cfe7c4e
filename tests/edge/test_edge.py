"""The programs of docs/edge.md, in Python, in Node and in a page; each predicts with an exported file."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from registry_tools.cli.main import main
from tests.support.browser import PageLog
from tests.support.constants import ROOT
from tests.support.npm_packages import npm_packages
from tests.support.stores import Trained

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs" / "edge.md").read_text()
FOLDER = Path(__file__).parent
INSTALLED = ROOT / ".edge"  # git ignores it; other tests skip the documents in a hidden folder


def program(language: str) -> str:
    """Return the only code block of a language in the document."""
    (text,) = [part.partition("```")[0] for part in PAGE.split(f"```{language}\n")[1:]]
    return text


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The runtime of ONNX files in Node and in a page."""
    return npm_packages(FOLDER, INSTALLED) / "onnxruntime-web"


@pytest.fixture
def exported(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with `iris.onnx`."""
    assert main(["export", "iris/1", "--format", "onnx", "-o", str(tmp_path / "iris.onnx")]) == 0
    capsys.readouterr()
    return tmp_path


def test_the_python_program_of_the_edge_page_predicts(exported: Path) -> None:
    (exported / "predict.py").write_text(program("python"))
    done = subprocess.run(
        [sys.executable, "predict.py"], cwd=exported, check=True, capture_output=True, text=True
    )
    assert done.stdout == "versicolor\n"


def test_the_node_program_of_the_edge_page_predicts(exported: Path, runtime: Path) -> None:
    (exported / "predict.mjs").write_text(program("js"))
    (exported / "node_modules").symlink_to(runtime.parent)
    done = subprocess.run(["node", "predict.mjs"], cwd=exported, check=True, capture_output=True, text=True)
    assert done.stdout == "versicolor\n"


@pytest.fixture
def address(exported: Path) -> Iterator[str]:
    """The address of a server of the folder, on this machine."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(exported))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_html_page_of_the_edge_page_predicts_in_chromium_without_a_network(
    exported: Path, runtime: Path, address: str, page: Page, page_log: PageLog
) -> None:
    (exported / "index.html").write_text(program("html"))
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        shutil.copy(runtime / "dist" / name, exported)
    page.goto(f"{address}/index.html")
    expect(page.locator("output")).to_have_text("versicolor")
    page.locator("input").nth(2).fill("1.4")
    page.locator("input").nth(3).fill("0.2")
    expect(page.locator("output")).to_have_text("setosa")
    assert not page_log.outside
    assert not [error for error in page_log.errors if "favicon" not in error]
