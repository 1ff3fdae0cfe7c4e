"""Compute the graph of a `pt2` file, operation by operation."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry_tools.errors import VerificationError
from registry_tools.terminal import printable

DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
_MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 3: "channels_last_3d", 4: "preserve_format"}
# Operations that compute with tensors and reach nothing else.
_OPERATIONS = """
    abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d adaptive_max_pool2d add addmm alias
    all amax amin any arange argmax argmin argsort avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm
    bmm cat celu chunk clamp clamp_max clamp_min clone concat constant_pad_nd contiguous conv1d conv2d
    conv3d conv_transpose1d conv_transpose2d convolution cos cosh cumsum detach div dropout einsum elu
    embedding eq erf exp expand expand_as feature_dropout flatten flip floor floor_divide fmod full
    full_like gather ge gelu glu group_norm gru gt hardsigmoid hardswish hardtanh index index_select
    instance_norm isnan layer_norm le leaky_relu linear log log1p log2 log_sigmoid log_softmax
    logical_and logical_not logical_or logit logsumexp lstm lt masked_fill matmul max max_pool1d
    max_pool2d max_pool3d maximum mean min minimum mish mm movedim mul nan_to_num ne neg new_ones
    new_zeros norm one_hot ones ones_like pad permute pixel_shuffle pow prelu prod reciprocal relu relu6
    remainder repeat repeat_interleave reshape rms_norm rnn_relu rnn_tanh rsqrt rsub
    scaled_dot_product_attention select selu sigmoid sign silu sin slice softmax softplus softsign sort
    split split_with_sizes sqrt square squeeze stack std sub sum sym_size t tanh tanhshrink threshold to
    topk transpose tril triu type_as unbind unflatten unfold unsqueeze upsample_bilinear2d
    upsample_nearest2d var view view_as where zeros zeros_like _assert_tensor_metadata
"""
_ON_NUMBERS = "getitem add sub mul floordiv mod neg eq ne lt le gt ge truediv"
# Texts that choose a variant of an operation. No other text reaches one: it could name a file.
_TEXTS = {"none", "tanh", "floor", "trunc", "constant", "reflect", "replicate", "circular", "linear"}
_TARGET = re.compile(r"torch\.ops\.aten\.([a-z_0-9]+)\.([A-Za-z_0-9]+)|_operator\.([a-z]+)")


@dataclass(frozen=True)
class _Step:
    """One operation, with the names of the values that it takes and gives."""

    function: Any
    positional: Sequence[Mapping[str, Any]]
    named: Mapping[str, Mapping[str, Any]]
    results: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Graph:
    """A function of one tensor."""

    torch: Any
    constants: Mapping[str, Any]  # by the names of the graph
    input_name: str
    output_name: str
    steps: Sequence[_Step]
    last_operation: str

    @classmethod
    def of(
        cls, torch: Any, program: Mapping[str, Any], tensors: Mapping[str, Any], trusted: Collection[str]
    ) -> Graph:
        """Return the graph of an exported program.

        Parameters
        ----------
        torch
            The module.
        program
            The JSON of the file.
        tensors
            The weights and constants of the file, by name.
        trusted
            Operations that the operator allows, such as `torch.ops.aten.mv`.

        Raises
        ------
        VerificationError
            If it has operations that are not allowed, several inputs or outputs, or changes its weights.
        """
        graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
        constants, inputs = {}, []
        for spec in signature["input_specs"]:
            ((kind, content),) = spec.items()
            if kind == "user_input":
                inputs.append(content["arg"]["as_tensor"]["name"])
            elif kind in ("parameter", "buffer", "tensor_constant"):
                constants[content["arg"]["name"]] = tensors[content[f"{kind}_name"]]
            else:
                raise VerificationError(f"the PyTorch graph has an input of the kind {printable(kind)[:50]}")
        outputs = [spec.get("user_output") for spec in signature["output_specs"]]
        if len(inputs) != 1 or len(outputs) != 1 or outputs[0] is None:
            raise VerificationError(
                "the PyTorch graph has several inputs or outputs, or changes its weights: log a module of "
                "one tensor, after model.eval()"
            )
        output = outputs[0]["arg"]["as_tensor"]["name"]
        steps = [_step(torch, node, trusted) for node in graph["nodes"]]
        makers = (
            node["target"] for node in graph["nodes"] if {"as_tensor": {"name": output}} in node["outputs"]
        )
        last = _TARGET.fullmatch(next(makers, ""))
        return cls(torch, constants, inputs[0], output, steps, (last and last[1]) or "")

    def __call__(self, rows: Any) -> Any:
        """Return the output for rows."""
        values = {**self.constants, self.input_name: rows}
        for step in self.steps:
            positional = [self._value(each, values) for each in step.positional]
            named = {name: self._value(each, values) for name, each in step.named.items()}
            _keep(step.results, step.function(*positional, **named), values)
        return values[self.output_name]

    def _value(self, argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        ((kind, content),) = argument.items()
        if kind in ("as_tensor", "as_sym_int", "as_sym_bool", "as_sym_float", "as_optional_tensor"):
            return _named(content, values)
        if kind in ("as_tensors", "as_sym_ints", "as_sym_bools", "as_optional_tensors"):
            return [_named(each, values) for each in content]
        if kind == "as_scalar_type":
            return getattr(self.torch, DTYPES[content])
        if kind == "as_memory_format":
            return getattr(self.torch, _MEMORY_FORMATS[content])
        if kind == "as_layout":
            return self.torch.strided
        if kind == "as_device":
            return self.torch.device("cpu")
        return None if kind == "as_none" else content


_PLAIN = ("as_none", "as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string")
_KINDS = {
    *(
        *_PLAIN,
        "as_tensor",
        "as_tensors",
        "as_optional_tensor",
        "as_optional_tensors",
        "as_sym_int",
        "as_sym_ints",
    ),
    *(
        "as_sym_bool",
        "as_sym_bools",
        "as_sym_float",
        "as_scalar_type",
        "as_memory_format",
        "as_layout",
        "as_device",
    ),
}


def _step(torch: Any, node: Mapping[str, Any], trusted: Collection[str]) -> _Step:
    """Return the step of a node, after checking its operation and the kinds of its arguments."""
    target = str(node["target"])
    found = _TARGET.fullmatch(target)
    name, overload, on_numbers = found.groups() if found else (None, None, None)
    if on_numbers in _ON_NUMBERS.split():
        function = getattr(operator, str(on_numbers))
    elif name and (name.removesuffix("_") in _OPERATIONS.split() or f"torch.ops.aten.{name}" in trusted):
        function = getattr(getattr(torch.ops.aten, name), str(overload))
    else:
        shown = printable(target.rpartition(".")[0] if name else target)[:200]
        raise VerificationError(
            f"the PyTorch graph has the operation {shown}, which is not on the list of operations that only "
            f"compute: if you trust it, use --trust {shown} (trust=[…])"
        )
    for given in node["inputs"]:
        ((kind, content),) = given["arg"].items()
        if kind not in _KINDS or (kind == "as_string" and content not in _TEXTS):
            raise VerificationError(
                f"the PyTorch graph gives {printable(target)[:100]} a {printable(kind)[:50]}"
            )
    named = {str(each["name"]): each["arg"] for each in node["inputs"] if each.get("kind") == 2}
    return _Step(function, [e["arg"] for e in node["inputs"] if e.get("kind") != 2], named, node["outputs"])


def _named(content: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return the value of a tensor or a size, which is a name or a number."""
    if "as_none" in content:
        return None
    content = content.get("as_tensor", content)
    name = content.get("as_name", content.get("name"))
    return (
        values[name]
        if name is not None
        else content.get("as_int", content.get("as_bool", content.get("as_float")))
    )


def _keep(results: Sequence[Mapping[str, Any]], value: Any, values: dict[str, Any]) -> None:
    """Keep the result of a step by its names."""
    found = [value] if len(results) == 1 else value
    for result, each in zip(results, found, strict=False):
        ((kind, content),) = result.items()
        if kind.endswith("s"):
            for part, one in zip(content, each, strict=True):
                values[part["name"]] = one
        elif isinstance(content, dict):
            values[str(content.get("as_name", content.get("name")))] = each
