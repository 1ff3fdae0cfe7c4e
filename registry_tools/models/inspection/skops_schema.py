"""Check the schema of a skops archive: the number of its objects, and how skops would build them."""

from __future__ import annotations

import json
import zipfile
from typing import Any

from registry_tools.errors import VerificationError

SCHEMA = "schema.json"
# 1,500 boosted trees have 600,000 values, a forest of 100 trees has 35,000. Each value needs about 100
# bytes of memory.
MOST_SCHEMA_VALUES = 10_000_000
# The node type that skops writes for compiled classes, by module. Other node types would make skops call
# the class, which can crash: the constructor of `BallTree` does with too few weights.
_COMPILED = {
    "sklearn.tree._tree": "TreeNode",
    "sklearn.neighbors._kd_tree": "ObjectNode",
    "sklearn.neighbors._ball_tree": "ObjectNode",
    "sklearn.metrics._dist_metrics": "ObjectNode",
}


def read_schema(where: str, archive: zipfile.ZipFile) -> Any:
    """Return the JSON schema of an archive.

    Raises
    ------
    VerificationError
        If the schema has too many values.
    ValueError, LookupError, RecursionError
        If the schema is missing or not readable.
    """
    text = archive.read(SCHEMA)
    if sum(text.count(sign) for sign in (b",", b"[", b"{")) > MOST_SCHEMA_VALUES:
        raise VerificationError(
            f"{where}/{SCHEMA} has more than {MOST_SCHEMA_VALUES:,} values: train a model with fewer trees"
        )
    return json.loads(text)


def check_schema(where: str, schema: Any) -> tuple[list[str], list[str]]:
    """Check a schema, and return the files that its objects name.

    skops gives each object a number, `__id__`. If an object occurs again, skops writes it out again with
    the same number. A crafted schema could use a number alone, or for another object: a few nested lists
    of such numbers would take years to load.

    Returns
    -------
    files
        The files, each as often as skops reads it.
    node_files
        The files with the nodes of a `Tree`.

    Raises
    ------
    VerificationError
        If skops did not write the schema.
    LookupError, TypeError, AttributeError, RecursionError
        If the content is not a schema.
    """
    counts: dict[Any, int] = {}
    occurrences: dict[Any, int] = {}
    trees: list[Any] = []
    files: dict[Any, set[str]] = {}

    def count(value: Any) -> int:
        if isinstance(value, list):
            return 1 + sum(count(child) for child in value if isinstance(child, (dict, list)))
        total = 1 + sum(count(child) for child in value.values() if isinstance(child, (dict, list)))
        number, file = value.get("__id__"), value.get("file")
        if isinstance(number, (dict, list)):  # an attribute that is named `__id__`
            number = None
        if isinstance(file, str):
            files.setdefault(number or object(), set()).add(file)
        if value.get("__loader__") == "TreeNode":
            trees.append(value)
        _check_loader(where, value)
        occurrences[number] = occurrences.get(number, 0) + 1
        if number and counts.setdefault(number, total) != total:
            raise VerificationError(
                f"{where}/{SCHEMA} has two objects of the number {str(number)[:30]}: save the model again"
            )
        return total

    count(schema)
    node_files = [_node_file(where, tree, occurrences) for tree in trees]
    return [name for names in files.values() for name in names], node_files


def _node_file(where: str, tree: Any, occurrences: dict[Any, int]) -> str:
    """Return the file with the nodes of a `Tree`, whose constructor crashes if they are not a list.

    No other object may have the number of the state or of the nodes, because skops would use it instead.
    """
    state = tree["content"]
    nodes = state["content"]["nodes"]
    kinds = state["__loader__"], nodes["__loader__"], nodes["type"]
    shared = any(each.get("__id__") and occurrences[each["__id__"]] > 1 for each in (state, nodes))
    if shared or kinds != ("DictNode", "NdArrayNode", "numpy"):
        raise VerificationError(f"{where}/{SCHEMA} has a Tree without nodes of its own: save the model again")
    return str(nodes["file"])


def _check_loader(where: str, value: dict[str, Any]) -> None:
    """Refuse a compiled class with another node type than skops writes for it."""
    expected = _COMPILED.get(str(value.get("__module__")))
    if expected is not None and value.get("__loader__") != expected:
        raise VerificationError(
            f"{where}/{SCHEMA} builds a {str(value.get('__class__'))[:50]} by "
            f"{str(value.get('__loader__'))[:50]}, which skops does not write for it: save the model again"
        )
