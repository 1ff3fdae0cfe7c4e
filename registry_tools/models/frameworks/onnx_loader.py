"""Load ONNX graphs into ONNX Runtime, which computes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from registry_tools.errors import VerificationError, first_line
from registry_tools.models.formats import file_in
from registry_tools.models.frameworks.class_scores import SIGMOID, SOFTMAX, OutputModel, model_of_scores
from registry_tools.models.frameworks.native_format import (
    FormatRunsCode,
    ModelFile,
    checked_file,
    import_package,
)

# The allowed providers of ONNX Runtime, which compute on this machine. They may have no options: an option
# can name a library to load or a file to write. AzureExecutionProvider would send the rows elsewhere.
_PROVIDERS = tuple(
    f"{name}ExecutionProvider"
    for name in ("CPU", "CUDA", "CoreML", "Dml", "Dnnl", "MIGraphX", "OpenVINO", "ROCM", "Tensorrt")
)
_SESSION_OPTIONS = {
    *("execution_mode", "graph_optimization_level", "inter_op_num_threads", "intra_op_num_threads")
}
_LAST_STEPS = {"Softmax": SOFTMAX, "Sigmoid": SIGMOID}
_NUMPY_TYPES = {
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "bool")},
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": "object",
}


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of the model, after checking the settings of ONNX Runtime.

    Raises
    ------
    FormatRunsCode
        If it has settings other than known providers and numbers of threads.
    """
    providers = flavor.get("providers") or []
    for provider in providers if isinstance(providers, list) else [providers]:
        if provider not in _PROVIDERS:
            raise FormatRunsCode(
                f"onnx with the provider {str(provider)[:60]}; the allowed providers, without options, are "
                f"{', '.join(_PROVIDERS)}"
            )
    options = flavor.get("onnx_session_options") or {}
    for option in options if isinstance(options, dict) else [options]:
        if str(option) not in _SESSION_OPTIONS:
            raise FormatRunsCode(f"onnx with the session option {str(option)[:60]}")
    return checked_file("onnx", flavor, generic, (".onnx",))


def load(model: ModelFile) -> Any:
    """Return a model of the outputs of the graph.

    Raises
    ------
    VerificationError
        If the file is no ONNX graph, or the graph names a file that is none of the model's.
    """
    onnx, runtime = import_package("onnx"), import_package("onnxruntime")
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(model.path), load_external_data=False).graph
    except DecodeError as error:
        raise VerificationError(f"{model.path.name} is not readable: it is not an ONNX graph") from error
    _check_graph(graph, model.folder)
    errors = _runtime_errors()
    wanted = model.flavor.get("providers") or ()
    providers = [name for name in wanted if name in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(
            str(model.path), _options(model, runtime), providers or ["CPUExecutionProvider"]
        )
    except errors as error:
        raise VerificationError(f"ONNX Runtime cannot load {model.path.name}: {_reason(error)}") from error
    run = _Run(session, errors)
    labels, *others = session.get_outputs()
    if others and len(labels.shape) == 1:
        classes = _classes(graph, others[0], model.class_names)
        return OutputModel(run.first_output) if classes is None else LabelClassifier(run, classes)
    last_step = next((n.op_type for n in graph.node if labels.name in n.output), None)
    return model_of_scores(run.first_output, model.class_names, _LAST_STEPS.get(last_step or ""))


def _check_graph(graph: Any, folder: Path) -> None:
    """Refuse a graph that reads files other than the verified files of the model."""
    for message in _messages(graph):
        kind = message.DESCRIPTOR.name
        if kind == "NodeProto" and message.op_type == "EPContext":
            raise VerificationError("the ONNX graph has a node EPContext, which loads a compiled binary")
        if kind == "TensorProto" and message.data_location == message.EXTERNAL:
            for entry in message.external_data:
                if entry.key == "location":
                    file_in(folder, entry.value)


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it."""
    waiting = [message]
    while waiting:
        found = waiting.pop()
        yield found
        for field, value in found.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "DESCRIPTOR") else value)


def _options(model: ModelFile, runtime: Any) -> Any:
    """Return the options of the session; one thread, unless the model names a number."""
    given, options = model.flavor.get("onnx_session_options") or {}, runtime.SessionOptions()
    options.inter_op_num_threads = int(given.get("inter_op_num_threads") or 1)
    options.intra_op_num_threads = int(given.get("intra_op_num_threads") or 1)
    options.log_severity_level = 3  # errors only
    if str(given.get("execution_mode", "")).upper() == "PARALLEL":
        options.execution_mode = runtime.ExecutionMode.ORT_PARALLEL
    if level := given.get("graph_optimization_level"):
        options.graph_optimization_level = runtime.GraphOptimizationLevel(int(level))
    return options


def _classes(graph: Any, probabilities: Any, class_names: tuple[str, ...]) -> npt.NDArray[Any] | None:
    """Return the classes in the order of the probabilities; None if the model does not name them."""
    for node in graph.node:
        if node.op_type == "ZipMap" and probabilities.name in node.output:
            (labels,) = (a for a in node.attribute if a.name.startswith("classlabels_"))
            return np.array(list(labels.ints) or [text.decode() for text in labels.strings])
    return np.arange(len(class_names)) if class_names else None


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Return the errors of ONNX Runtime, which have no common base class."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(
        each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception)
    )


def _reason(error: Exception) -> str:
    return first_line(error, 200).rpartition(" : ")[2]


@dataclass(frozen=True)
class _Run:
    """Run a session on rows."""

    session: Any
    errors: tuple[type[Exception], ...]

    def __call__(self, rows: Any) -> list[Any]:
        """Return all outputs of the graph for rows.

        Raises
        ------
        ValueError
            If the rows do not fit the inputs of the graph.
        """
        try:
            return self.session.run(None, self._inputs(rows))
        except self.errors as error:
            raise ValueError(_reason(error)) from error

    def first_output(self, rows: Any) -> npt.NDArray[Any]:
        """Return the first output of the graph."""
        return np.asarray(self(rows)[0])

    def _inputs(self, rows: Any) -> dict[str, Any]:
        taken = self.session.get_inputs()
        if len(taken) == 1:
            return {taken[0].name: np.asarray(rows).astype(_NUMPY_TYPES.get(taken[0].type, "float32"))}
        if missing := [each.name for each in taken if each.name not in getattr(rows, "columns", ())]:
            raise ValueError(f"the graph takes its columns by name, and the rows have no {missing[0]!r}")
        columns = {each.name: rows[each.name].to_numpy(_NUMPY_TYPES.get(each.type)) for each in taken}
        return {e.name: columns[e.name].reshape(-1, *[1] * (len(e.shape) - 1)) for e in taken}


@dataclass(frozen=True)
class LabelClassifier:
    """A graph whose first output is the predicted class, and whose second output the probabilities."""

    run: _Run
    classes_: npt.NDArray[Any]

    def predict(self, rows: Any) -> npt.NDArray[Any]:
        """Return the predicted classes, shape (rows,)."""
        return self.run.first_output(rows)

    def predict_proba(self, rows: Any) -> npt.NDArray[Any]:
        """Return the probability of each class, shape (rows, classes)."""
        found = self.run(rows)[1]
        if isinstance(found, list):  # a mapping from class to probability for each row
            return np.array([[row[label] for label in self.classes_.tolist()] for row in found])
        return np.asarray(found)
