"""What the Open Inference Protocol, version 2, asks for, whatever the transport.

A model's outputs are called by the method that gives them, `predict` and `predict_proba`; without a
wish, the first is answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from registry_tools.errors import InputError
from registry_tools.inference.predictor import METHODS, Served
from registry_tools.serving.engine.data_plane import Plane
from registry_tools.serving.rest.messages import Refused
from registry_tools.serving.v2 import tensor_codec
from registry_tools.serving.v2.tensor_codec import Description
from registry_tools.serving.v2.tensors import Tensor

EXTENSIONS = ["binary_tensor_data"]


@dataclass(frozen=True)
class Wish:
    """What a request asks for: rows, and outputs of them."""

    inputs: list[Tensor]
    methods: list[str]
    id: str = ""
    binary: set[str] = field(default_factory=set)  # the outputs that are sent as bytes


async def infer(
    plane: Plane, served: Served, wish: Wish, request_id: str
) -> tuple[int, list[Tensor]]:
    """Return the number of rows and the outputs that were wished for, whatever the transport.

    Raises
    ------
    InputError, UnsupportedOperation
        If the model cannot take the rows, or has no such output.
    """
    outputs: list[Tensor] = []
    answers: list[Any] = []
    watched: str | None = request_id
    if served.form is not None:
        matrix = tensor_codec.matrix_of(wish.inputs, served.form)
        for method in wish.methods:
            answers = await plane.answer(served, method, matrix, watched)
            outputs += tensor_codec.of_answers(method, answers)
            watched = None
    else:
        content = tensor_codec.content_of(wish.inputs, served.info.signature)
        for method in wish.methods:
            answers = await plane.answer_content(served, method, content, watched)
            outputs += tensor_codec.of_answers(method, answers)
            watched = None
    return len(answers), outputs


def check_named(served: Served, name: str, version: str) -> None:
    """Check that a request means the model, and the version, that is served.

    Raises
    ------
    Refused
        404 if it means another.
    """
    if name != served.source.name:
        raise Refused(404, f"this server answers for {served.source.name!r}, and for no other")
    if version and version != served.label:
        raise Refused(404, f"version {served.label} is served, and no other")


def methods_of(outputs: list[str]) -> list[str]:
    """Return the methods that give these outputs.

    Raises
    ------
    InputError
        If there is none for one of them.
    """
    for output in outputs:
        if output not in METHODS:
            raise InputError(f"output {output[:50]!r} is unknown: there are {', '.join(METHODS)}")
    return list(dict.fromkeys(outputs)) or ["predict"]


def described(served: Served) -> tuple[list[Description], list[Description]]:
    """Return the tensors that a version takes, and those that it gave to its example."""
    outputs = []
    for method, answers in served.answers.items():
        for tensor in tensor_codec.of_answers(method, answers):
            shape = (-1, *tensor.values.shape[1:])
            outputs.append(Description(tensor.name, tensor.datatype, shape))
    return tensor_codec.inputs_of(served.info.signature), outputs


def server_metadata() -> dict[str, Any]:
    """Return what the protocol tells of a server."""
    return {"name": "registry-tools", "version": _own_version(), "extensions": EXTENSIONS}


def model_metadata(served: Served) -> dict[str, Any]:
    """Return what the protocol tells of a model."""
    inputs, outputs = described(served)
    return {
        "name": served.source.name,
        "versions": [served.label],
        "platform": "mlflow_pyfunc" if served.form is None else "sklearn_skops",
        "inputs": [vars(tensor) for tensor in inputs],
        "outputs": [vars(tensor) for tensor in outputs],
    }


@cache
def _own_version() -> str:
    return metadata.version("registry-pipeline")
