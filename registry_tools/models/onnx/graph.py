"""Build an ONNX graph node by node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import UnsupportedOperation

ML = "ai.onnx.ml"  # the domain of the operators for trees and texts
OPSETS = {"": 18, ML: 5}  # 5 has trees whose splits and sums are float64
_IR_VERSION = 10  # of the same age as these operators; older runtimes refuse a newer one


def import_onnx() -> Any:
    """Return the module `onnx`.

    Raises
    ------
    UnsupportedOperation
        If the extra `onnx` is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise UnsupportedOperation(
            f"the ONNX export needs the extra `onnx` ({error.name} is not installed): "
            "pip install 'registry-pipeline[onnx]'"
        ) from error
    return onnx


@dataclass
class Graph:
    """The nodes and constants of an ONNX graph, in the order of their computation."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    count: int = 0

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return the name of its output."""
        helper = import_onnx().helper
        self.count += 1
        name = f"{op}_{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, values: npt.ArrayLike, dtype: Any = np.float64) -> str:
        """Add a constant, and return its name."""
        self.count += 1
        name = f"constant_{self.count}"
        array = np.asarray(values).astype(dtype)
        self.constants.append(import_onnx().numpy_helper.from_array(array, name))
        return name

    def cast(self, value: str, dtype: Any) -> str:
        """Add a conversion to a NumPy type."""
        return self.add("Cast", value, to=import_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def columns(self, value: str, positions: npt.ArrayLike) -> str:
        """Add a selection of columns, shape (rows, positions)."""
        return self.add("Gather", value, self.constant(positions, np.int64), axis=1)

    def join(self, values: list[str]) -> str:
        """Add the concatenation of columns; one value stays itself."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=1)

    def flat(self, value: str) -> str:
        """Change the shape from (rows, 1) to (rows,)."""
        return self.add("Reshape", value, self.constant([-1], np.int64))

    def declare_input(self, name: str, dtype: Any, columns: int) -> str:
        """Declare an input of shape (rows, columns)."""
        self.inputs.append(self._value(name, dtype, ["rows", columns]))
        return name

    def declare_output(self, name: str, value: str, dtype: Any, columns: int | None = None) -> None:
        """Give a value the name of an output, of shape (rows,) or (rows, columns)."""
        self.nodes.append(import_onnx().helper.make_node("Identity", [value], [name]))
        self.outputs.append(self._value(name, dtype, ["rows"] if columns is None else ["rows", columns]))

    def _value(self, name: str, dtype: Any, shape: list[Any]) -> Any:
        helper = import_onnx().helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    def model(self, name: str, metadata: dict[str, str]) -> Any:
        """Return the finished model, after checking its operators and types."""
        onnx = import_onnx()
        helper = onnx.helper
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        model.producer_name = "registry-tools"
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        return model
