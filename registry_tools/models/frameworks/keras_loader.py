"""Load `.keras` files whose configuration names known layers only."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from registry_tools.errors import VerificationError
from registry_tools.models.frameworks.class_scores import SIGMOID, SOFTMAX, model_of_scores
from registry_tools.models.frameworks.native_format import FormatRunsCode, ModelFile, import_package
from registry_tools.models.inspection.archives import check_zip
from registry_tools.terminal import printable

_BACKENDS = {"jax": "jax", "torch": "torch", "tensorflow": "tensorflow"}  # and their packages
# Modules whose public classes hold numbers and compute with them.
_MODULES = ("activations", "constraints", "dtype_policies", "initializers", "regularizers")
_MODELS = {"Sequential", "Functional", "DTypePolicy"}
_LAYERS = {
    *(
        "InputLayer",
        "Dense",
        "Embedding",
        "EinsumDense",
        "Identity",
        "Masking",
        "Activation",
        "ReLU",
        "LeakyReLU",
    ),
    *("PReLU", "ELU", "Softmax", "Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "Rescaling"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "ActivityRegularization", "Normalization"),
    *(
        "BatchNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "UnitNormalization",
        "RMSNormalization",
    ),
    *(
        "SpectralNormalization",
        "Flatten",
        "Reshape",
        "Permute",
        "RepeatVector",
        "Concatenate",
        "Add",
        "Average",
    ),
    *("Subtract", "Multiply", "Maximum", "Minimum", "Dot", "Attention", "AdditiveAttention"),
    *("MultiHeadAttention", "GroupQueryAttention", "LSTM", "LSTMCell", "GRU", "GRUCell", "SimpleRNN"),
    *("SimpleRNNCell", "RNN", "StackedRNNCells", "Bidirectional", "TimeDistributed"),
    *(f"{kind}{n}D" for kind in ("Conv", "MaxPooling", "AveragePooling", "Cropping") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("UpSampling", "ZeroPadding", "GlobalMaxPooling") for n in (1, 2, 3)),
    *(f"GlobalAveragePooling{n}D" for n in (1, 2, 3)),
    *(f"Conv{n}DTranspose" for n in (1, 2, 3)),
    *(f"{kind}Conv{n}D" for kind in ("Separable", "Depthwise") for n in (1, 2)),
}
_VALUES = {"__keras_tensor__", "__numpy__", "__tensor__", "__ellipsis__", "__slice__", "__bytes__"}
_LAST_STEPS = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "Softmax": SOFTMAX}


def file_of(flavor: Mapping[str, Any], generic: Mapping[str, Any], folder: Path) -> str:
    """Return the file of the model, after checking the flavor.

    Raises
    ------
    FormatRunsCode
        If it is a graph of TensorFlow.
    """
    if flavor.get("save_exported_model") or flavor.get("data") != "data":
        raise FormatRunsCode("keras saved as a SavedModel, whose operations read and write files")
    return "data/model.keras"


def load(model: ModelFile) -> Any:
    """Return a model of the outputs of the network.

    Raises
    ------
    VerificationError
        If the file names a type that is not allowed, or its weights are in another file.
    """
    check_zip(model.path, model.path.name)
    with zipfile.ZipFile(model.path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    if isinstance(config, dict):
        config.pop("compile_config", None)  # not built, as `compile` is False
    for name in sorted(set(_types(config))):
        if not _is_allowed(name) and name not in model.trust_policy.types:
            shown = printable(name)[:200]
            raise VerificationError(
                f"the Keras model contains {shown}, which is not on the list of layers without code: build "
                f"it from other layers or, if you trust it, use --trust {shown} (trust=[…])"
            )
    _check_weights(weights, model.path.name)
    keras = _import_keras(model)
    network = keras.saving.load_model(model.path, safe_mode=True, compile=False)
    last = network.layers[-1] if network.layers else None
    last_step = getattr(getattr(last, "activation", None), "__name__", type(last).__name__)

    def outputs(rows: Any) -> Any:
        found = network(np.asarray(rows, dtype="float32"), training=False)
        return keras.ops.convert_to_numpy(found)

    return model_of_scores(outputs, model.class_names, _LAST_STEPS.get(last_step))


def _types(config: Any) -> Iterator[str]:
    """Yield the names of the types and functions that a configuration builds, with their modules."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting.extend(found)
        elif isinstance(found, dict):
            waiting.extend(found.values())
            if "class_name" not in found:
                continue
            module, name = found.get("module"), found["class_name"]
            if found.get("registered_name") not in (None, name, found.get("config")):
                module, name = "", found["registered_name"]  # Keras prefers a type of this name
            if name == "function":
                name = found.get("config")
            yield str(name) if name in _VALUES and not module else f"{module}.{name}"


def _is_allowed(name: str) -> bool:
    module, _, last = name.rpartition(".")
    if module == "keras.layers":
        return last in _LAYERS
    if module in ("keras", "keras.src.models.functional", "keras.src.models.sequential"):
        return last in _MODELS
    if module in (
        "builtins",
        *(f"keras.{each}" for each in _MODULES),
    ):  # `builtins` stands for Keras' functions
        return last.isidentifier() and not last.startswith("_")
    return name in _VALUES


def _import_keras(model: ModelFile) -> Any:
    """Import Keras with an installed backend; its default, TensorFlow, need not be installed."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ:
        wanted = [str(model.flavor.get("keras_backend")), *_BACKENDS]
        found = (each for each in wanted if each in _BACKENDS and importlib.util.find_spec(_BACKENDS[each]))
        backend = next(found, None)
        if backend is None:
            import_package("keras")
            raise VerificationError("Keras needs a backend, and none is installed: pip install jax")
        os.environ["KERAS_BACKEND"] = backend
    return import_package("keras")


def _check_weights(content: bytes, name: str) -> None:
    """Refuse weights that HDF5 reads from another file."""
    h5py = import_package("h5py")
    with h5py.File(io.BytesIO(content), "r") as file:
        groups = [file]
        while groups:
            group = groups.pop()
            for key in group:
                if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
                    raise VerificationError(f"{name} has weights in another file ({key!r}): save it again")
                found = group[key]
                if isinstance(found, h5py.Group):
                    groups.append(found)
                elif found.external or found.is_virtual:
                    raise VerificationError(f"{name} has weights in another file ({key!r}): save it again")
