"""Our `/invocations` beside MLflow's own scoring app, in process, over generated requests."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from registry_tools.models import artifacts
from tests.support.constants import IRIS_COLUMNS as NAMES
from tests.support.registries import Place
from tests.support.side_by_side import JSON, Ask, save_sklearn, side_by_side

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(0, 9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 9),
)
oddities = st.one_of(
    st.none(), st.booleans(), st.sampled_from(["", "1.5", "nan", "x", "1_0"]), st.just([1.0])
)
values = st.one_of(numbers, numbers, numbers, oddities)
names = st.one_of(
    st.just(NAMES),
    st.permutations(NAMES),
    st.permutations([*NAMES, "more"]),
    st.lists(st.sampled_from([*NAMES, "petal"]), max_size=5),
)


@st.composite
def splits(draw: st.DrawFn) -> dict[str, Any]:
    columns = draw(names)
    cells = draw(st.sampled_from([numbers, values]))
    width = len(columns) if draw(st.integers(0, 9)) else draw(st.integers(0, 5))
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=4))
    split: dict[str, Any] = {"columns": columns, "data": rows}
    if not draw(st.integers(0, 5)):
        split["index"] = list(range(draw(st.integers(0, 4))))
    if not draw(st.integers(0, 9)):
        del split[draw(st.sampled_from(sorted(split)))]
    return {"dataframe_split": split}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(st.sampled_from(["dataframe_records", "inputs", "instances"]))
    cells = draw(st.sampled_from([numbers, values]))
    whole = st.fixed_dictionaries(dict.fromkeys(NAMES, cells))
    part = st.dictionaries(st.sampled_from([*NAMES, "more"]), cells)
    one = draw(st.sampled_from([whole, whole, part]))
    return {key: draw(st.lists(one, max_size=3))}


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(st.sampled_from(["inputs", "instances"]))
    length = draw(st.integers(0, 3))
    column = st.lists(numbers, min_size=length, max_size=length)
    return {key: draw(st.fixed_dictionaries(dict.fromkeys(NAMES, column)))}


anything = st.recursive(
    values, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=8
)
junk = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "inputs", "instances", "more"]),
    anything,
    max_size=2,
)
requests = st.one_of(splits(), splits(), records(), columns(), junk, anything)


def whole_numbers(folder: Path) -> None:
    """Save a model of integers and of floats of two sizes."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.integers(0, 9, (60, 4)).astype(float), columns=NAMES)
    types = dict(zip(NAMES, ("int64", "int32", "float32", "float64"), strict=True))
    table = table.astype(types)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, rng.integers(0, 3, 60))
    save_sklearn(fitted, folder / "model", table)


def mixed(folder: Path) -> None:
    """Save a model of a text, of numbers that may be missing, and of one that may not."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.normal(5, 2, (60, 4)), columns=NAMES)
    table[NAMES[0]] = rng.choice(["x", "nan", "1.5"], 60)
    prepare = ColumnTransformer(
        [("text", OneHotEncoder(handle_unknown="ignore"), NAMES[:1]), ("number", SimpleImputer(), NAMES[1:])]
    )
    fitted = make_pipeline(prepare, LogisticRegression()).fit(table, rng.integers(0, 3, 60))
    table.loc[:3, NAMES[1]] = np.nan
    save_sklearn(fitted, folder / "model", table)


@pytest.fixture(
    params=[
        "doubles",
        pytest.param("whole numbers", marks=pytest.mark.slow),
        pytest.param("mixed", marks=pytest.mark.slow),
    ]
)
def ask(request: pytest.FixtureRequest, local: Place, tmp_path: Path) -> Ask:
    """Return a function that posts a body to both servers and returns both responses."""
    folder = tmp_path / "source"
    if request.param == "doubles":
        with artifacts.model_files(local.client, "trained", 1) as files:
            shutil.copytree(files, folder / "model")
    else:
        {"whole numbers": whole_numbers, "mixed": mixed}[request.param](folder)
    return side_by_side(folder)


def examples(number: int) -> settings:
    """Generate as many requests, the same each time; run more of them by hand."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def agree(ours: httpx.Response, theirs: httpx.Response, body: bytes) -> None:
    """Compare a response with MLflow's; an internal error there is a refusal here."""
    wanted = 400 if theirs.status_code == 500 else theirs.status_code
    assert ours.status_code == wanted, (body[:500], ours.text[:300], theirs.text[:300])
    if wanted == 200:
        assert ours.json() == theirs.json(), body[:500]
    else:
        assert "Traceback" not in ours.text


@examples(100)
@given(content=requests)
def test_json_gets_the_response_of_mlflow(ask: Ask, content: Any) -> None:
    body = json.dumps(content).encode()
    agree(*ask(body, JSON), body)


@examples(60)
@given(
    header=names,
    rows=st.lists(st.lists(st.one_of(numbers, st.just(""), st.just("x")), max_size=5), max_size=3),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_gets_the_response_of_mlflow(
    ask: Ask, header: list[str], rows: list[list[Any]], end: str
) -> None:
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    body = end.join(lines).encode()
    agree(*ask(body, "text/csv"), body)


@examples(40)
@given(
    header=names,
    row=st.lists(st.one_of(st.floats(0, 9), st.integers(0, 9), st.just("x"), st.none()), min_size=5),
    rows=st.integers(0, 3),
)
def test_parquet_gets_the_response_of_mlflow(ask: Ask, header: list[str], row: list[Any], rows: int) -> None:
    table = {name: [value] * rows for name, value in zip(header, row, strict=False)}
    buffer = io.BytesIO()
    pd.DataFrame(table).to_parquet(buffer)
    body = buffer.getvalue()
    agree(*ask(body, "application/vnd.apache.parquet"), body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"3", b'"x"', b"\xff", b"{}", b'{"a": NaN}', b"[" * 5000]
)
@pytest.mark.parametrize("kind", [JSON, "text/csv", "application/vnd.apache.parquet", "text/plain"])
def test_a_body_that_is_no_table_is_refused_as_by_mlflow(ask: Ask, body: bytes, kind: str) -> None:
    agree(*ask(body, kind), body)
