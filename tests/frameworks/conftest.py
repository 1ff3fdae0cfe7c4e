"""Collect the tests of this folder only where `make test-frameworks` has installed their packages."""

import os

REQUIRED = "REGISTRY_TOOLS_TEST_FRAMEWORKS"

os.environ.setdefault("KERAS_BACKEND", "jax")  # read when Keras is imported; the default is TensorFlow
if REQUIRED not in os.environ:
    collect_ignore_glob = ["test_*.py"]
