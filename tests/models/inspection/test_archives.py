"""What a skops archive and a NumPy archive may expand to."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import BallTree, KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from registry_tools.errors import VerificationError
from registry_tools.models.evidence import read_training_rows
from registry_tools.models.inspection import skops_schema
from tests.support.crafted_models import load, rewrite_archive, save_model

Schema = dict[str, Any]
Files = dict[str, bytes]
_X, _Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


def model(folder: Path) -> Path:
    """Save a small model, and return the path of its archive."""
    return save_model(folder, LogisticRegression().fit(_X, _Y)) / "model.skops"


def arrays(value: Any) -> list[dict[str, Any]]:
    """Return every object of a schema that names a file."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict) and "file" in value else []
    return found + [array for child in children for array in arrays(child)]


def npy(header: str, content: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    size = (len(text) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + content


def doubles(shape: str) -> str:
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"


def large_file(schema: Schema, files: Files) -> None:
    files["zeros.bin"] = bytes(80 << 20)


def file_named_often(schema: Schema, files: Files) -> None:
    (first, *_) = arrays(schema)
    files[first["file"]] = npy(doubles(f"({1 << 20},)"), bytes(8 << 20))
    schema["content"]["content"]["more"] = {
        "__class__": "list",
        "__module__": "builtins",
        "__loader__": "ListNode",
        "content": [{**first, "__id__": number} for number in range(1, 20)],
    }


def references(schema: Schema, files: Files) -> None:
    """Lists of the numbers of lists: 30 levels that skops follows two billion times."""
    node: Schema = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": "1"}
    for number in range(1, 31):
        kind = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "__id__": number}
        node = {**kind, "content": [node, {"__id__": number - 1}] if number > 1 else [node]}
    schema["content"]["content"]["more"] = node


def nested_archive(schema: Schema, files: Files) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", bytes(80 << 20))
    files[arrays(schema)[0]["file"]] = buffer.getvalue()


def array_of(content: bytes) -> Callable[[Schema, Files], None]:
    def change(schema: Schema, files: Files) -> None:
        files[arrays(schema)[0]["file"]] = content

    return change


def by_its_constructor(schema: Schema, files: Files) -> None:
    """`BallTree` reads beyond the end of weights that are too few, while it is constructed."""
    schema["content"]["content"]["more"] = {
        "__class__": "BallTree",
        "__module__": "sklearn.neighbors._ball_tree",
        "__loader__": "ConstructorFromReduceNode",
        "content": {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": []},
    }


def tree_of(schema: Schema) -> Schema:
    return schema["content"]["content"]["tree_"]


def nodes_of_no_dimension(schema: Schema, files: Files) -> None:
    """`Tree` takes its length, and crashes while it is constructed."""
    nodes = tree_of(schema)["content"]["content"]["nodes"]
    files[nodes["file"]] = npy(doubles("()"), bytes(8))


def nodes_of_another_number(schema: Schema, files: Files) -> None:
    """Under the number of the nodes, skops finds another array that comes first."""
    files["number.npy"] = npy(doubles("()"), bytes(8))
    nodes = tree_of(schema)["content"]["content"]["nodes"]
    content = schema["content"]["content"]
    schema["content"]["content"] = {"first": {**nodes, "file": "number.npy"}, **content}


def nodes_as_a_list(schema: Schema, files: Files) -> None:
    nodes = tree_of(schema)["content"]["content"]["nodes"]
    nodes.update({"type": "json", "content": [], "shape": {}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nodes_of_no_dimension, "has a Tree whose nodes are not a list"),
        (nodes_of_another_number, "has a Tree without nodes of its own"),
        (nodes_as_a_list, "has a Tree without nodes of its own"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_a_tree_that_would_crash_while_it_is_built_is_refused(
    change: Callable[[Schema, Files], None], message: str, tmp_path: Path
) -> None:
    path = save_model(tmp_path, DecisionTreeClassifier().fit(_X, _Y)) / "model.skops"
    rewrite_archive(path, change)
    with pytest.raises(VerificationError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (large_file, "model.skops expands to more than 67,108,864 bytes"),
        (file_named_often, "model.skops expands to more than 67,108,864 bytes"),
        (nested_archive, "model.skops expands to more than 67,108,864 bytes"),
        (references, "has two objects of the number"),
        (by_its_constructor, "builds a BallTree by ConstructorFromReduceNode"),
        (array_of(npy(doubles("(1, 2)"), b"", 2, 1 << 31)), "has a header of 2,147,483,648 bytes"),
        (array_of(npy(" " * 60_000, b"", 2)), "is not readable"),
        (array_of(npy(doubles("(1099511627776,)"))), "an array of 8,796,093,022,208 bytes and holds 0"),
        (array_of(npy(doubles("(-1, -1)"), bytes(8))), "declares an array"),
        (array_of(npy(doubles("(1, 2)").replace("<f8", "|V0"))), "declares an array of 0 bytes"),
        (array_of(npy("(" * 5000)), "is not readable"),
        (array_of(npy("-" * 9000 + "1")), "is not readable"),
        (array_of(npy(doubles("(1, 2)"), bytes(16), 2)[:10]), "has a header of 58 bytes"),
        (array_of(b"\x93NUMPY\x03\x00"), r"has the version \(3, 0\) of NumPy's format"),
    ],
    ids=lambda each: getattr(each, "__name__", each)[:40],
)
def test_an_archive_that_costs_too_much_is_refused(
    change: Callable[[Schema, Files], None], message: str, tmp_path: Path
) -> None:
    path = model(tmp_path)
    rewrite_archive(path, change)
    assert path.stat().st_size < 200_000
    with pytest.raises(VerificationError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_schema_of_very_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path)
    monkeypatch.setattr(skops_schema, "MOST_SCHEMA_VALUES", 10)
    with pytest.raises(VerificationError, match="has more than 10 values"):
        load(tmp_path)


def lying(path: Path, name: str, size: int) -> None:
    """Declare another size for an entry, in both of the places where a zip file has it."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(name.encode()))
    for place in (directory + 24, entry.header_offset + 22):
        content[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_entry_that_is_larger_than_declared_is_refused(compression: int, tmp_path: Path) -> None:
    path = model(tmp_path)
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr("zeros.bin", bytes(1 << 20))
    load(tmp_path)
    lying(path, "zeros.bin", 10)
    with pytest.raises(VerificationError, match=r"zeros\.bin does not have its declared size|readable"):
        load(tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_and_other_methods_are_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "double")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(VerificationError, match="has two entries of the same name"):
        load(tmp_path / "double")
    path = model(tmp_path / "bzip2")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("zeros.bin", bytes(1 << 20))
    with pytest.raises(VerificationError, match=r"zeros\.bin is encrypted, or compressed by another method"):
        load(tmp_path / "bzip2")


def test_archives_that_skops_writes_are_taken(tmp_path: Path) -> None:
    shared = KNeighborsClassifier(algorithm="ball_tree").fit(_X, _Y)
    shared.again_ = [shared._tree, shared._tree, b"", b"", sp.csr_matrix(np.eye(3))]
    folder = save_model(tmp_path, shared)
    rewrite_archive(folder / "model.skops", lambda schema, files: None)  # compressed
    loaded = load(folder, "scipy.sparse._csr.csr_matrix").estimator
    assert isinstance(loaded.again_[0], BallTree)
    assert loaded.predict(_X).tolist() == shared.predict(_X).tolist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("hashes.npy", bytes(80 << 20), "expands to more than 67,108,864 bytes"),
        ("columns.npy", npy(doubles("(1099511627776,)")), "declares an array of 8,796,093,022,208 bytes"),
        ("columns.npy", npy("", b"", 2, 1 << 31), "has a header of 2,147,483,648 bytes"),
    ],
)
def test_training_rows_that_expand_are_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "training_rows.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    with pytest.raises(VerificationError, match=f"evidence/training_rows.npz.*{message}"):
        read_training_rows(tmp_path)


def test_the_schema_is_written_as_json(tmp_path: Path) -> None:
    """The tests above change what skops writes: it must still be what they expect."""
    with zipfile.ZipFile(model(tmp_path)) as archive:
        assert arrays(json.loads(archive.read("schema.json")))
