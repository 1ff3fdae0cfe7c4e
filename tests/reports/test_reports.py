"""The pages of `compare --html` and `history --html`: what they say, and that nothing escapes."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.cli.main import main
from registry_tools.evaluation.comparison import PairedPredictions
from registry_tools.mlflow_store.registry import VersionInfo
from registry_tools.promotion.event import Event
from registry_tools.reports.comparison import comparison_page
from registry_tools.reports.history import history_page
from registry_tools.stats.metric import Outcomes
from registry_tools.stats.paired_metric import compare_shares
from tests.support.constants import LONG
from tests.support.registries import EQUAL, GOOD, Place
from tests.support.stores import Trained

NOW = datetime(2026, 11, 26, 12, tzinfo=timezone.utc)
EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Reads the elements of a page, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def check_self_contained(self) -> None:
        assert not {tag for tag, _ in self.found} & {"script", "link", "iframe", "object"}
        addresses = [a.get(key) for _, a in self.found for key in ("src", "href")]
        assert all(str(each).startswith("data:image/png") for each in addresses if each)


def version(number: int, **values: object) -> VersionInfo:
    return VersionInfo("iris", number, run_id="r" * 32, digest="d" * 64, **values)  # type: ignore[arg-type]


def side_by_side(columns: int = 2, rows: int = 80) -> PairedPredictions:
    labels = np.array(["a", "b"] * (rows // 2), dtype=object)
    first, second = labels.copy(), np.array(["a"] * rows, dtype=object)
    table = pd.DataFrame({f"column {place}": np.arange(rows) / 7 for place in range(columns)})
    sure = (labels[:, None] == np.array(["a", "b"])) * 0.8 + 0.1
    return pair(table, Outcomes(labels, first, sure, ("a", "b")), Outcomes(labels, second, None, ("a", "b")))


def pair(table: pd.DataFrame, first: Outcomes, second: Outcomes) -> PairedPredictions:
    right, other = (each.predicted == each.labels for each in (first, second))
    return PairedPredictions(table, first, second, compare_shares(right, other))


def event(number: int | None, outcome: str, hour: int, **values: object) -> Event:
    plain: dict[str, object] = {
        "run_id": f"run{hour}", "action": "promote", "outcome": outcome, "version": number,
        "stage": "production", "previous_version": None, "actor": "ada", "reason": "because",
        "forced": False, "at": f"2026-11-26T{hour:02}:00:00.000+00:00", "gates": (), "sequence": hour,
    }  # fmt: skip
    return Event(**(plain | values))  # type: ignore[arg-type]


def test_text_from_the_registry_is_never_markup() -> None:
    table = pd.DataFrame({EVIL: [EVIL, EVIL]})
    words = np.array([EVIL, "b"], dtype=object)
    answers = (Outcomes(words, each, None, (EVIL, "b")) for each in (words, words[::-1]))
    compared = pair(table, *answers)
    evil = VersionInfo(EVIL, 1, params={EVIL: EVIL}, tags={"data_digest": EVIL})
    pages = [
        comparison_page(evil, version(2), compared, ({EVIL: b"x"}, {}), NOW),
        comparison_page(evil, version(2), EVIL, ({}, {}), NOW),
        history_page(EVIL, [event(1, "applied", 3, actor=EVIL, reason=EVIL)], {EVIL: 1}, [EVIL], NOW),
    ]
    for page in pages:
        assert EVIL not in page
        Tags(page).check_self_contained()


def test_rows_on_which_both_agree_are_not_listed_and_a_long_list_is_cut() -> None:
    page = comparison_page(version(1), version(2), side_by_side(20, 240), ({}, {}), NOW)
    assert "50 of 120, with the first\n12 of 20 columns" in page
    assert page.count("✓ b (0.90)") == 50
    assert "✓ a" not in page
    assert "column 11" in page
    assert "column 12" not in page


def test_the_first_sentence_names_the_better_version_and_its_significance() -> None:
    page = comparison_page(version(1), version(2), side_by_side(), ({}, {}), NOW)
    assert "iris 1 is right on 40 more of 80 rows that neither was trained on" in page
    assert "which is significant" in page
    few = comparison_page(version(1), version(2), side_by_side(rows=4), ({}, {}), NOW)
    assert "iris 1 is right on 2 more of 4 rows" in few
    assert "which may be chance" in few


def test_a_picture_of_one_version_is_shown_beside_a_placeholder() -> None:
    pictures = {"learning_curve": b"\x89PNG"}, {}
    page = comparison_page(version(1), version(2), "no rows", pictures, NOW)
    images = [attributes for tag, attributes in Tags(page).found if tag == "img"]
    assert [image["alt"] for image in images] == ["learning curve of iris 1"]
    assert base64.b64decode(str(images[0]["src"]).partition(",")[2]) == b"\x89PNG"
    assert "Its run has none." in page
    assert "Not compared on the same rows: no rows." in page


def test_a_timeline_shows_which_version_held_the_stage_and_how_long() -> None:
    entries = [
        event(1, "applied", 11),
        event(3, "refused", 8),
        event(2, "applied", 7),
        event(1, "applied", 5),
    ]
    page = history_page("iris", entries, {"production": 1}, [], NOW)
    lanes = re.findall(r'<td class="lane([^"]*)">(.*?)</td>', page, re.DOTALL)
    text = [re.sub(r"<[^>]+>|\s+", " ", content).split() for _, content in lanes]
    assert [" ".join(words) for words in text] == [
        "version 1 for 1 h now", "version 2 still", "version 2 for 4 h", "version 1 for 2 h",
    ]  # fmt: skip
    # A refusal changes nothing: the bar goes on in its colour, and changes at each move.
    assert ["odd" in kind for kind, _ in lanes] == [True, False, False, True]
    Tags(page).check_self_contained()


def test_where_clocks_differ_the_sequence_numbers_decide_the_order() -> None:
    ahead, behind = event(1, "applied", 11, sequence=1), event(2, "applied", 9, sequence=2)
    page = history_page("iris", [ahead, behind], {"production": 2}, [], NOW)
    lanes = re.findall(r'<td class="lane[^"]*">(.*?)</td>', page, re.DOTALL)
    assert "version 2" in lanes[0]
    assert "for 3 h now" in lanes[0]
    assert "the clocks differ" in lanes[1]


def test_a_partial_history_is_marked_and_begins_with_the_earlier_version() -> None:
    cut = [event(3, "applied", 11, previous_version=2)]
    page = history_page("iris", [event(9, "refused", 11), *cut], {}, [], NOW, "Only the newest 2 events")
    assert "times are UTC. Only the newest 2 events." in page
    nothing = history_page("iris", [], {"canary": 1}, [], NOW, "Only events on foo")
    assert "None of these events is recorded." in nothing


def test_a_class_that_one_version_does_not_know_is_reported() -> None:
    plain = side_by_side()
    labels = plain.first.labels.copy()
    labels[:3] = "c"
    knows = Outcomes(labels, plain.first.predicted, None, ("a", "b", "c"))
    compared = pair(plain.rows, knows, replace(plain.second, labels=labels))
    page = comparison_page(version(1), version(2), compared, ({}, {}), NOW)
    assert "iris 2 does not know the class c, the label of 3 rows: counted as wrong." in page


def test_numeric_values_keep_their_type_beside_text() -> None:
    words = np.array(["a", "b"], dtype=object)
    table = pd.DataFrame({"id": [1234567, 7654321], "x": [0.5, None], "list": [[1], [2]]})
    answers = (Outcomes(words, each, None, ("a", "b")) for each in (words, words[::-1]))
    compared = pair(table, *answers)
    page = comparison_page(version(1), version(2), compared, ({}, {}), NOW)
    assert "<td>1234567</td><td>0.5</td><td>[1]</td>" in page
    assert "<td>7654321</td><td>-</td>" in page


@pytest.mark.slow
def test_odd_files_among_the_pictures_are_left_out_and_named(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        train(TrainParams(model="knn", plots=False))
    client = MlflowClient(store)
    run_id = client.get_model_version("iris", "1").run_id
    plots = tmp_path / "plots"
    (plots / "folder.png").mkdir(parents=True)
    (plots / "folder.png" / "inside.txt").write_text("x")
    figure = Figure(figsize=(1, 1))
    figure.savefig(plots / "good.png")
    (plots / "a%20b.png").write_bytes((plots / "good.png").read_bytes())
    (plots / "no.png").write_text("no picture")
    (plots / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1 << 20))
    client.log_artifacts(run_id, str(plots), "images")
    for number in range(25):
        client.log_artifact(run_id, str(plots / "good.png"), "images")
        (plots / "good.png").rename(plots / f"z{number:02}.png")
        figure.savefig(plots / "good.png")
        client.log_artifact(run_id, str(plots / f"z{number:02}.png"), "images")
    file = tmp_path / "report.html"
    assert main(["compare", "iris/1", "iris/2", "--html", str(file)]) == 0
    page = file.read_text()
    assert sum(tag == "img" for tag, _ in Tags(page).found) == 20
    for name in ("no.png", "large.png", "z24.png"):
        assert name in page
    assert "folder" not in page


def test_a_version_is_not_compared_with_itself(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "iris/2", "iris@staging"]) == 1
    error = capsys.readouterr().err
    assert "iris/2 and iris@staging are both iris version 2" in error


def test_each_stage_has_a_lane_and_an_emptied_stage_is_marked() -> None:
    entries = [
        event(None, "applied", 9, action="external"),
        event(4, "applied", 8, stage="canary"),
        event(2, "applied", 7),
    ]
    page = history_page("iris", entries, {"canary": 4}, ["production is empty"], NOW)
    assert "no version" in page
    assert "external" in page
    assert "production is empty" in page
    assert page.count('class="lane') == 2 + 2 * len(entries)


def test_both_commands_write_a_page_from_a_real_registry(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.html"
    assert main(["compare", "iris/1", "iris/2", "--html", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "metric accuracy" in printed
    assert printed.endswith(f"report: {file}\n")
    page = file.read_text()
    Tags(page).check_self_contained()
    assert "on 30 rows that neither was trained on" in page
    assert 'alt="confusion matrix of iris 1"' in page
    assert main(["compare", "iris/1", "iris/2", "--metric", "log_loss", "--html", str(file)]) == 0
    asked = re.search("log_loss 0.* and 0.*, difference .*", capsys.readouterr().out)
    assert asked
    assert f"By the metric that you asked for: {asked[0]}." in file.read_text()
    assert main(["compare", "iris/1", "iris/2", "--html", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["paired"]["rows"], result["report"]) == (30, str(file))
    assert main(["history", "iris", "--html", str(file)]) == 0
    assert "register version 2 in staging" in file.read_text()


@LONG
@pytest.mark.slow
def test_gate_command_json_and_page_show_one_interval(
    local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, page = local.model(GOOD, EQUAL), tmp_path / "page.html"
    assert main(["promote", f"{name}/1", "--to", "production"]) == 0
    both = [f"{name}/2", f"{name}@production"]
    capsys.readouterr()
    main(["promote", both[0], "--to", "production", "--dry-run", "--json"])
    gates = json.loads(capsys.readouterr().out)["verdict"]["gates"]
    gate = next(gate for gate in gates if gate["gate"] == "champion")
    assert main(["compare", *both, "--json"]) == 0
    paired = json.loads(capsys.readouterr().out)["paired"]
    assert (gate["metrics"]["low"], gate["metrics"]["high"]) == (paired["low"], paired["high"])
    assert -1 < paired["low"] < paired["difference"] < paired["high"] < 1
    interval = f"{paired['difference']:+.4f} [{paired['low']:+.4f}, {paired['high']:+.4f}]"
    assert interval in gate["message"]
    assert main(["compare", *both]) == 0
    assert interval in capsys.readouterr().out
    assert main(["compare", *both, "--html", str(page)]) == 0
    assert interval in page.read_text()
    assert f"[{paired['low']:.4f}, {paired['high']:.4f}]" in page.read_text()


def test_a_page_corrects_its_comparisons_together_and_says_so() -> None:
    # The same 6 rows of 80 decide: clear when tested alone, p = 0.03, and not among four comparisons.
    labels = np.array(["a", "b"] * 40, dtype=object)
    second = labels.copy()
    second[[0, 2, 4, 1, 3, 5]] = ["b", "b", "b", "a", "a", "a"]
    plain = side_by_side()
    first, other = (Outcomes(labels, each, None, ("a", "b")) for each in (labels, second))
    compared = pair(plain.rows, first, other)
    page = comparison_page(version(1), version(2), compared, ({}, {}), NOW)
    assert "All 4 comparisons on this page are corrected together." in page
    assert "Holm's method corrects" in page
    assert "iris 1 is right on 6 more of 80 rows" in page
    assert "which may be chance" in page
    # 6 discordant rows: p = 2 / 2**6 for the accuracy, of which there are four comparisons.
    assert "p = 0.125</span>" in page
    assert "No metric below shows a significant difference" in page


def test_a_class_that_is_shown_to_be_worse_is_never_left_out() -> None:
    # 30 small classes that differ by 1 row of 2, and a large one that differs by less, and clearly.
    names = [f"small {place:02}" for place in range(30)]
    labels = np.array(["large"] * 400 + [name for name in names for _ in range(2)], dtype=object)
    first, second = labels.copy(), labels.copy()
    second[:40] = "small 00"
    first[400::4], second[402::4] = "large", "large"
    predictions = (Outcomes(labels, each, None, ("large", *names)) for each in (first, second))
    compared = pair(pd.DataFrame({"x": np.arange(len(labels))}), *predictions)
    page = comparison_page(version(1), version(2), compared, ({}, {}), NOW)
    assert "recall of large (iris 1)" in page
    assert '<th scope="row">recall of large</th>' in page
    assert "metrics of classes that differ less" in page


def test_a_page_that_cannot_be_written_is_one_line_and_leaves_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["history", "iris", "--html", str(tmp_path / "no" / "h.html")]) == 1
    assert "h.html: cannot be written: No such file or directory" in capsys.readouterr().err
    assert main(["history", "iris", "--html", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
