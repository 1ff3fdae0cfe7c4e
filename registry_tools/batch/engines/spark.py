"""Spark as the engine: MLflow's `spark_udf` on the same version, in place of worker processes.

Rows are coerced here as there, so that both predict the same for the same rows; Spark receives
coerced rows and returns predictions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from registry_tools.batch.predictions import BatchResult, prediction_names
from registry_tools.batch.readers.read_rows import Batch
from registry_tools.data.arrow_coercion import coerce_batch, to_arrow
from registry_tools.data.coerced_batch import CoercedBatch
from registry_tools.errors import RegistryToolsError, UnsupportedOperation, first_line
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models.loaded_model import LoadedModel, load_folder
from registry_tools.models.trust_policy import TrustPolicy

_BATCHES = 16  # that are sent to Spark at once
_ROW = "_row"


def check_installed() -> None:
    """Refuse to begin where Spark cannot run.

    Raises
    ------
    UnsupportedOperation
        If pyspark or Java is missing; says how to come by it.
    """
    try:
        import joblibspark  # noqa: F401
        import pyspark  # noqa: F401
    except ImportError:
        raise UnsupportedOperation(
            "Spark is not installed: install registry-pipeline[spark] (pip install "
            "--require-hashes -r requirements-spark.lock)"
        ) from None
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        where = f"JAVA_HOME={home} has no bin/java" if home else "there is none on PATH"
        raise UnsupportedOperation(
            f"Spark needs Java 17 or newer, and {where}: install a JRE, or point JAVA_HOME at one"
        )


class SparkEngine:
    """A session of Spark with one version in it."""

    def __init__(self, master: str) -> None:
        """Start or join it."""
        check_installed()
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession

        try:
            self._spark = (
                SparkSession.builder.master(master)
                .appName("registry-tools score")
                .config("spark.ui.enabled", "false")
                .config("spark.ui.showConsoleProgress", "false")
                .config("spark.log.level", "ERROR")
                .config("spark.sql.execution.arrow.pyspark.enabled", "true")
                .getOrCreate()
            )
        except Exception as error:
            if isinstance(error, (PySparkException, RuntimeError, OSError)):
                reason = first_line(error)
            elif type(error).__module__.partition(".")[0] == "py4j":  # an error of Java
                reason = _java_error(error)
            else:
                raise
            raise RegistryToolsError(f"Spark at {master} does not start: {reason}") from error

    def load(self, artifact: ModelArtifact, policy: TrustPolicy, proba: bool, text: bool) -> list[str]:
        """Give a version to Spark, after it was found to hold nothing that is not trusted.

        Raises
        ------
        UnsupportedOperation
            If probabilities are asked for.
        VerificationError
            If it holds what is not trusted.
        """
        if proba:
            raise UnsupportedOperation(
                "MLflow's spark_udf gives predictions alone: leave out --proba or --engine spark"
            )
        self._model: LoadedModel = load_folder(artifact.model, policy)
        self._artifact, self._text = artifact, text
        self._udf = self._make_udf()
        return []

    def _make_udf(self) -> Any:
        import mlflow.pyfunc

        classes = getattr(self._model.estimator, "classes_", np.empty(0))
        kind = {"i": "long", "u": "long", "f": "double", "b": "boolean"}.get(classes.dtype.kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow about pandas 3, and of Spark's own making
            return mlflow.pyfunc.spark_udf(
                self._spark,
                str(self._artifact.model),
                result_type=(kind or "string") if len(classes) else "double",
                env_manager="local",
            )

    def predict(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, BatchResult]]:
        """Yield each batch with its predictions, in order; some are sent together."""
        columns = self._model.info.signature or ()
        iterator = iter(batches)
        while together := list(itertools.islice(iterator, _BATCHES)):
            coerced = [coerce_batch(batch.rows, columns, self._text) for batch in together]
            good = [one.without_faults() for one in coerced]
            predicted = self._predict_together(good)
            begin = 0
            for batch, before, after in zip(together, coerced, good, strict=True):
                part = predicted[begin : begin + after.rows]
                begin += after.rows
                names = prediction_names(part, self._model.info)
                predictions = {"prediction": part, "prediction_name": names}
                yield batch, (pa.RecordBatch.from_pydict(predictions), before.reasons)

    def _predict_together(self, parts: list[CoercedBatch]) -> pa.Array:
        from pyspark.sql.functions import struct

        columns = self._model.info.signature or ()
        table = pa.concat_tables(
            pa.table({c.name: to_arrow(part, c) for c in columns}) for part in parts
        ).combine_chunks()
        table = table.append_column(_ROW, pa.array(np.arange(len(table))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                frame = self._spark.createDataFrame(table)
                names = [f"`{column.name.replace('`', '``')}`" for column in columns]
                predicted = frame.select(_ROW, self._udf(struct(*names)).alias("prediction"))
                result = predicted.toArrow()
            except Exception as error:
                if type(error).__module__.partition(".")[0] not in {"py4j", "pyspark"}:
                    raise
                raise RegistryToolsError(f"Spark failed: {_java_error(error)}") from error
        column = result.sort_by(_ROW).column("prediction").combine_chunks()
        return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)

    def close(self) -> None:
        """End the session."""
        with contextlib.suppress(Exception):
            self._spark.stop()


def _java_error(error: BaseException) -> str:
    """Return the last error that a trace of Java and Python names, or its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line or "Exception: " in line]
    return (named or lines or [type(error).__name__])[-1 if named else 0][:300]
