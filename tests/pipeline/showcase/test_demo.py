"""The demo, with a real server, real requests and a real retraining."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import PipelineError
from pipeline.showcase import demo
from registry_tools.mlflow_store import stages
from registry_tools.promotion import history


@pytest.mark.slow(minutes=1)
def test_the_loop_runs_from_log_to_promotion_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "demo", "--folder", str(folder), "--port", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"done: \d{4} flowers predicted, 0 lost", done.stdout)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert stages.stage_holder(client, "iris", "production") == 2
    event = history.list_events(client, "iris", stage="production")[0]
    (found,) = re.findall(r"monitoring run (\w+)", event.reason)
    assert client.get_run(found).data.tags["verdict"] == "drift"
    page = (folder / "index.html").read_text()
    assert "the server has loaded version 2" in page
    assert 'http-equiv="refresh"' not in page  # it has ended
    assert {file.name for file in folder.glob("report-*.html")} == {
        *(f"report-{number}.html" for number in (1, 2, 3))
    }


def test_a_folder_with_other_files_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("a page of another kind")
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work")
    with pytest.raises(PipelineError, match="has files of something else"):
        demo.run(tmp_path, 0, print)
    assert kept.read_text() == "years of work"
