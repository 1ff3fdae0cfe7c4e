"""The matrix of `docs/reference/frameworks.md`: each cell is what a command did with a real model.

A command that succeeds is not enough for a cell: its result is compared with the predictions of the model.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest

from registry_tools import load_model
from registry_tools.cli.main import main
from tests.frameworks.cases import FRAMEWORKS, HELD_OUT, Framework, log_version, needs
from tests.support.constants import ROOT
from tests.support.servers import BIN, free_port, wait_until_up
from tests.support.signing_keys import write_keys

PAGE = ROOT / "docs" / "reference" / "frameworks.md"
OPTIONS = ("--eval-data", "eval.csv", "--target", "species")
STAGE = ("--to", "production")
YES, CODE, NO = "yes", "`--allow-code`", "no"
ROWS = HELD_OUT.drop(columns="species")
LOWEST_ACCURACY = 0.8
Start = Callable[..., subprocess.Popen[bytes]]
Check = Callable[[Any], bool]  # whether the JSON of a command, and the files it wrote, are right


def documented() -> dict[str, dict[str, str]]:
    """Return the rows of the matrix of the page, by framework and command."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows if len(row) == len(header)}


@dataclass
class Matrix:
    """The commands for one framework, and the cells of those that were tried."""

    folder: Path  # the working folder
    capsys: pytest.CaptureFixture[str]
    cells: dict[str, str]

    def run(self, column: str, *argv: str, check: Check) -> None:
        """Try a command, with `--allow-code` if it asks for it, and check its result."""
        for cell, options in ((YES, ()), (CODE, ("--allow-code",))):
            self.capsys.readouterr()
            code = main([*argv, "--json", *options])
            out, error = self.capsys.readouterr()
            needs_code = "--allow-code" in out + error  # `compare` says so, and shows the rest
            if code == 0 and not needs_code:
                assert check(json.loads(out)), (argv, out)
                self.cells[column] = cell
                return
            if not needs_code:
                break
        print(f"{' '.join(argv)}: {error}")  # noqa: T201 - shown if the test fails
        self.cells[column] = NO

    @functools.cached_property
    def expected(self) -> Any:
        """The predictions of the held-out rows, which are mostly right."""
        found = load_model("petals/1", allow_code=True).predict(ROWS)
        assert found.shape == (len(ROWS),)
        assert np.mean(np.round(found) == HELD_OUT["species"]) > LOWEST_ACCURACY
        return found

    def equal(self, found: Any) -> bool:
        """Return whether values are the predictions of the held-out rows."""
        return bool(np.allclose(np.asarray(found, dtype=float), self.expected[: len(found)], atol=1e-5))

    def try_commands(self) -> None:
        """Run the commands in an order in which they can succeed."""
        # A version of numbers prints numbers, one of classes their names.
        key = "prediction" if self.expected.dtype.kind == "f" else "prediction_index"
        self.run("list", "list", "petals", check=lambda found: [v["version"] for v in found] == [2, 1])
        self.run("show", "show", "petals/1", check=lambda found: found["version"] == 1)
        rows = ("--input", "rows.csv")
        self.run("predict", "predict", "petals/1", *rows, check=lambda o: self.equal([r[key] for r in o]))
        for version, column in (("petals/1", "adopt"), ("petals/2", "(adopt the other)")):
            labels = ("--eval-data", "eval.csv", "--target", "species")
            self.run(
                column, "adopt", version, *labels, check=lambda found: found["holdout_rows"] == len(ROWS)
            )
        self.run("verify", "verify", "petals/1", check=lambda found: found["passed"])
        for version, column in (("petals/1", "promote"), ("petals/2", "(promote the other)")):
            self.run(
                column, "promote", version, *STAGE, check=functools.partial(self.holds, int(version[-1]))
            )
        compared = ("compare", "petals/1", "petals/2")
        self.run("compare", *compared, check=lambda found: (found["paired"] or {}).get("rows") == len(ROWS))
        reason = ("--reason", "matrix")
        self.run("rollback", "rollback", "petals", *reason, check=functools.partial(self.holds, 1))
        self.run(
            "score", "score", "petals/1", *rows, "--output", "out.csv", "--workers", "1", check=self.scored
        )
        key_file = str(write_keys(self.folder, "key"))
        self.run("sign", "sign", "petals/1", "--key", key_file, check=self.signed)
        target = f"sqlite:///{self.folder}/copy.db"
        self.run("copy", "copy", "petals/1", "--to-uri", target, check=functools.partial(self.copied, target))
        self.run("joblib", "export", "petals/1", "-o", "model.joblib", check=self.exported)
        onnx = ("--format", "onnx", "-o", "model.onnx")
        self.run("ONNX", "export", "petals/1", *onnx, check=self.exported_to_onnx)
        formats = [form for form in ("joblib", "ONNX") if self.cells.pop(form) == YES]
        self.cells["export"] = ", ".join(formats) or NO

    def holds(self, version: int, found: Any) -> bool:
        return load_model("petals@production", allow_code=True).info.version == version

    def scored(self, summary: Any) -> bool:
        return summary["rows"] == len(ROWS) and self.equal(pd.read_csv("out.csv")["prediction"])

    def signed(self, found: Any) -> bool:
        public = str(self.folder / "key.pub.pem")
        return self.equal(load_model("petals/1", allow_code=True, public_key=public).predict(ROWS))

    def copied(self, target: str, found: Any) -> bool:
        return self.equal(load_model("petals/1", tracking_uri=target, allow_code=True).predict(ROWS))

    def exported(self, found: Any) -> bool:
        return self.equal(joblib.load("model.joblib").predict(ROWS).ravel())  # CatBoost returns a column

    def exported_to_onnx(self, found: Any) -> bool:
        session = onnxruntime.InferenceSession("model.onnx")
        return self.equal(session.run(["prediction"], {"rows": ROWS.to_numpy()})[0])

    def serve(self, start: Start, tensor: bool, *options: str) -> None:
        """Start a server, and check the predictions of a request."""
        port, log = free_port(), self.folder / f"process-{len(options)}.log"
        process = start(BIN / "registry-tools", "serve", "petals@production", "--port", str(port), *options)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/ready", process)
        except AssertionError:
            if "--allow-code" in log.read_text() and not options:
                self.serve(start, tensor, "--allow-code")
            else:
                self.cells["serve"] = NO
            return
        rows = ROWS.head(40)
        body = {"inputs": rows.to_numpy().tolist()} if tensor else {"dataframe_split": rows.to_dict("split")}
        response = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=60)
        found = response.json()["predictions"]
        # As MLflow does, the server writes each value of a Series as an object.
        values = [next(iter(row.values())) if isinstance(row, dict) else row for row in found]
        assert self.equal(values), found
        self.cells["serve"] = CODE if options else YES


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "framework", [pytest.param(each, id=each.title, marks=needs(each.package)) for each in FRAMEWORKS]
)
def test_the_matrix_shows_which_commands_work_with_a_framework(
    framework: Framework, store: str, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        log_version(framework, "petals")
    HELD_OUT.to_csv("eval.csv", index=False)
    ROWS.to_csv("rows.csv", index=False)
    matrix = Matrix(tmp_path, capsys, {})
    matrix.try_commands()
    matrix.serve(start, framework.tensor)
    print(json.dumps(matrix.cells))  # noqa: T201 - shown if the test fails
    columns = documented()[framework.title]
    assert {column: matrix.cells[column] for column in columns} == columns
