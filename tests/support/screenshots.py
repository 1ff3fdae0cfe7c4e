"""Take the screenshots of the README from the example store: `make screenshots`.

To add a picture, add a function to `PICTURES`. The function opens a page, for a local file with
`page.goto(Path(…).as_uri())`, and returns when the page is ready for the screenshot.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import MISSING, SIZE, PageLog, launched, opened
from tests.support.consoles import running_console
from tests.support.gated import Gated, add_users, gated_server, write_policy
from tests.support.mlflow_ui import (
    axis_titles,
    open_chart,
    open_comparison,
    open_runs,
    open_trials,
    runs_of,
    save_alias,
    wait_for_lines,
)
from tests.support.servers import BIN, eventually, example
from tests.support.stores import create_database
from tests.support.tracking_servers import account

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
# MLflow's Assistant opens on the first visit, and leaves a button in the corner.
_QUIET = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
_STYLE = "button[data-assistant-ui] { visibility: hidden }"
_WIDTHS = {
    "attributes.`Run Name`": 245,
    "runDateAndNestInfo": 130,
    "duration": 80,
    "attributes.`Models`": 105,
    "metrics.`accuracy`": 160,
    "metrics.`log_loss`": 160,
    "metrics.`class/8/recall`": 140,
    "params.`max_iter`": 90,
}


def take(running: Browser, address: str, name: str, folder: Path) -> Path:
    """Take one screenshot, write it to a folder, and return its path."""
    path = folder / f"{name}.png"
    with opened(running, PageLog()) as page:
        PICTURES[name](page, address)
        page.screenshot(path=path, style=_STYLE, animations="disabled")
    with Image.open(path) as picture:
        # A palette makes the file a third of its size; these settings keep the colours of thin lines.
        palette = picture.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    palette.save(path, optimize=True)
    return path


def _remember(page: Page, stored: dict[str, str]) -> None:
    """Set values in the local storage of the browser, as an earlier visit of MLflow would."""
    page.add_init_script(
        f"for (const [key, value] of Object.entries({json.dumps(stored)}))"
        " if (!localStorage.getItem(key)) localStorage.setItem(key, value)"
    )


def runs(page: Page, address: str) -> None:
    """Show the runs of all models, the best first, with the columns in which they differ."""
    view = {
        "selectedColumns": [column for column in _WIDTHS if "." in column],
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
        "orderByKey": "metrics.`accuracy`",
        "orderByAsc": False,
    }
    place = runs_of(address, "digits")[0].info.experiment_id
    key = f'MLflowLocalStorage-1.1-ExperimentPage-["{place}"]-ReactComponentState'
    _remember(page, {**_QUIET, key: json.dumps(view)})
    page.set_viewport_size(SIZE | {"height": 572})
    open_runs(page, address, "digits")
    for column in ("accuracy", "log_loss", "class/8/recall", "max_iter"):
        expect(page.get_by_role("columnheader", name=column, exact=True).first).to_be_visible()


def compare(page: Page, address: str) -> None:
    """Compare four runs: the plot, the parameters that differ, and the metrics."""
    _remember(page, _QUIET)
    page.set_viewport_size(SIZE | {"height": 1800})
    open_comparison(page, address)
    chosen = page.get_by_role("combobox")
    for parameter in ("max_iter", "model"):
        _choose(page, chosen.nth(0), parameter)
    for metric in ("log_loss", "roc_auc", "class/versicolor/recall"):
        _choose(page, chosen.nth(1), metric)
    expect(axis_titles(page)).to_have_text(
        ["estimator", "accuracy", "log_loss", "roc_auc", "class/versicolor/recall"]
    )
    page.get_by_text("Show diff only").first.click()
    names = page.get_by_role("grid").first
    # The page fits the width of its tables to the details of the runs, as long as they are open.
    page.evaluate("dispatchEvent(new Event('resize'))")
    eventually(lambda: names.bounding_box()["width"] > 220)
    page.get_by_role("button", name="Run details").click()
    wait_for_lines(page)
    # The page cuts the seventh metric in half, so the picture ends after the sixth.
    _end_below(page, names.get_by_role("link", name="class/versicolor/recall"), space=16)
    page.mouse.move(0, 0)


def _end_below(page: Page, last: Locator, space: int = 0) -> None:
    """Give the window the height at which the picture ends below an element."""
    box = last.bounding_box()
    page.set_viewport_size(SIZE | {"height": round(box["y"] + box["height"]) + space})


def sweep(page: Page, address: str) -> None:
    """Show each trial of a sweep as a line over its parameters, coloured by its result."""
    _remember(page, _QUIET)
    page.set_viewport_size(SIZE | {"height": 600})
    open_trials(page, address, "digits", len(runs_of(address, "digits", "tags.kind = 'trial'")))
    page.mouse.move(0, 0)


def _choose(page: Page, box: Locator, name: str) -> None:
    box.click()
    page.get_by_title(name, exact=True).filter(visible=True).click()
    page.keyboard.press("Escape")


def losses(page: Page, address: str) -> None:
    """Show the loss of two boosting runs over their iterations."""
    boosting = [run for run in runs_of(address, "digits") if "loss/validation" in run.data.metrics]
    _chart(page, address, boosting[-2:], ["loss/train", "loss/validation"], 500)


def monitoring(page: Page, address: str) -> None:
    """Show the accuracy of production over six weeks, and when drift was detected."""
    timeline = runs_of(address, "iris-monitoring", "tags.kind = 'timeline'")
    _chart(page, address, timeline, ["live/accuracy", "promoted/accuracy", "drift"], 512)


def _chart(page: Page, address: str, runs: Sequence[Run], metrics: Sequence[str], height: int) -> None:
    _remember(page, _QUIET)
    page.set_viewport_size(SIZE | {"height": height})
    open_chart(page, address, runs, metrics)


def report(page: Page, address: str) -> None:
    """Show the metrics on the page that `registry-tools compare --html` writes."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "report.html")
        write_report(["compare", "digits/3", "digits/2"], address, path)
        page.goto(path.as_uri())
        title = page.get_by_role("heading", name=re.compile("^Metrics on"))
        title.evaluate("title => scrollTo(0, title.offsetTop - 24)")
        _end_below(page, page.get_by_role("row", name="precision of 1"))


def console_history(page: Page, address: str) -> None:
    """Show the history of a stage in the console."""
    with _console(address) as console:
        page.goto(f"{console}/models/iris/stages/production")
        page.set_viewport_size({"width": SIZE["width"], "height": 632})


def console_request(page: Page, address: str) -> None:
    """Show a request that waits for an approval, as an approver sees it in the console."""
    with _gated() as gated:
        name = _requested(gated)
        with _console(gated.uri, "--policy", str(gated.policy)) as console:
            page.goto(f"{console}/models/{name}/versions/2/production")
            page.get_by_label("Name").fill("ben")
            page.get_by_label("Password").fill(account("ben")["MLFLOW_TRACKING_PASSWORD"])
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("button", name="Approve")).to_be_visible()
    _end_below(page, page.get_by_role("region", name="gates"), space=8)


def alias_refused(page: Page, address: str) -> None:
    """Show how MLflow's own page reports that a version without a verdict may not enter a stage."""
    with _gated() as gated:
        _save_alias(page, gated, gated.model("one", name="iris"))
        expect(page.get_by_role("dialog").get_by_text("stage refused: ")).to_be_visible()
    page.set_viewport_size(SIZE | {"height": 600})


def alias_set(page: Page, address: str) -> None:
    """Show MLflow's own page after it moved a stage to a version with a verdict and an approval."""
    with _gated() as gated:
        name = gated.model("one", name="iris")
        gated.evaluate(name, 1)
        gated.request("trainer", name, 1)
        gated.decide("ben", name, 1)
        _save_alias(page, gated, name)
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_text("Production", exact=True)).to_be_visible()
        page.mouse.move(0, 0)
    page.set_viewport_size(SIZE | {"height": 576})


def _save_alias(page: Page, gated: Gated, name: str) -> None:
    assert gated.move("trainer", name, 1, "staging").status_code == 200
    _remember(page, _QUIET)
    save_alias(page, gated.uri, tuple(account("trainer").values()), f"models/{name}/versions/1", "production")


@contextlib.contextmanager
def _gated() -> Iterator[Gated]:
    """Run a gated server whose stage production needs one approval."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        create_database(folder / "empty.db")
        with gated_server(folder / "empty.db", folder) as gated:
            add_users(gated.uri)
            write_policy(folder, approvals={"count": 1, "by": ["ana", "ben"]})
            yield gated


def _requested(gated: Gated) -> str:
    """Return a model whose version 2 is requested for production, where version 1 is."""
    for version, model in ((1, "logistic_regression"), (2, "svc")):
        gated.train("--model", model)
        ref, key = f"iris/{version}", str(gated.folder / "ci.pem")
        gated.run_as("trainer", "registry_tools", "evaluate", ref, "--to", "production", "--key", key)
        gated.request("trainer", "iris", version, reason="a support vector machine")
        if version == 1:
            gated.decide("ana", "iris", version)
            assert gated.move("trainer", "iris", version).status_code == 200
    return "iris"


@contextlib.contextmanager
def _console(registry: str, *options: str) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_console(registry, Path(scratch, "console.log"), *options) as address,
    ):
        yield address


def write_report(command: Sequence[str], address: str, path: Path) -> None:
    """Run a command of `registry-tools` with `--html` on the registry at an address."""
    subprocess.run(
        [BIN / "registry-tools", *command, "--html", path, "--tracking-uri", address],
        check=True,
        capture_output=True,
    )


OF_A_GATED_SERVER = (console_request, alias_refused, alias_set)
PICTURES: dict[str, Callable[[Page, str], None]] = {
    each.__name__: each
    for each in (runs, sweep, compare, report, losses, monitoring, console_history, *OF_A_GATED_SERVER)
}


def main(folder: Path) -> None:
    """Take all screenshots."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        launched() as running,
        tempfile.TemporaryDirectory() as scratch,
        example(Path(scratch, "server.log")) as address,
    ):
        for name in PICTURES:
            take(running, address, name, folder)


if __name__ == "__main__":
    if shutil.which("chromium") is None:
        sys.exit(MISSING)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
