"""Load `pt2` files of PyTorch: the numbers as they are, and the graph as a list of operations to compute.

`torch.export.load` is not used: it unpickles records of the file, evaluates expressions in it as Python, and
compiles Python out of its names.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from registry_tools.errors import VerificationError
from registry_tools.models.frameworks.class_scores import SIGMOID, SOFTMAX, model_of_scores
from registry_tools.models.frameworks.native_format import FormatRunsCode, ModelFile, import_package
from registry_tools.models.frameworks.pt2_graph import DTYPES, Graph
from registry_tools.models.inspection.archives import check_zip

_LAST_STEPS = {"softmax": SOFTMAX, "sigmoid": SIGMOID}


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of the model, after checking the flavor.

    Raises
    ------
    FormatRunsCode
        If it was pickled.
    """
    file = "data/model.pt2"
    if flavor.get("model_data") != "data" or not (folder / file).is_file():
        raise FormatRunsCode("pytorch saved as a pickle")
    return file


def load(model: ModelFile) -> Any:
    """Return a model of the output of the graph.

    Raises
    ------
    VerificationError
        If the file has pickled records or operations that are not allowed.
    """
    check_zip(model.path, model.path.name)
    torch = import_package("torch")
    with zipfile.ZipFile(model.path) as archive:
        program = json.loads(archive.read(_record(archive, "/models/model.json")))
        tensors = {}
        for kind in ("weights", "constants"):
            record = _record(archive, f"/data/{kind}/model_{kind}_config.json")
            folder = record.rpartition("/")[0]
            for name, entry in json.loads(archive.read(record))["config"].items():
                if entry["use_pickle"]:
                    raise VerificationError(f"{model.path.name} has the pickled tensor {name[:100]!r}")
                content = archive.read(f"{folder}/{entry['path_name']}")
                tensors[name] = _tensor(torch, content, entry["tensor_meta"])
    graph = Graph.of(torch, program, tensors, model.trust_policy.types)

    def outputs(rows: Any) -> Any:
        given = torch.from_numpy(np.array(rows, order="C"))
        with torch.no_grad():
            return graph(given).numpy()

    return model_of_scores(outputs, model.class_names, _LAST_STEPS.get(graph.last_operation))


def _record(archive: zipfile.ZipFile, ending: str) -> str:
    found = [name for name in archive.namelist() if name.endswith(ending)]
    if len(found) != 1:
        raise VerificationError(f"the file has no single record {ending}: log it again with a newer PyTorch")
    return found[0]


def _tensor(torch: Any, content: bytes, meta: Mapping[str, Any]) -> Any:
    """Return a tensor of the bytes of a record."""
    dtype = getattr(torch, DTYPES[meta["dtype"]])
    sizes, strides = ([int(each["as_int"]) for each in meta[key]] for key in ("sizes", "strides"))
    if not content or math.prod(sizes) == 0:
        return torch.zeros(sizes, dtype=dtype)
    # PyTorch checks that all elements are within the bytes.
    flat = torch.frombuffer(bytearray(content), dtype=dtype)
    return flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))
