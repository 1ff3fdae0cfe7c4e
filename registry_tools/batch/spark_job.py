"""Scoring on Spark: executors read the table, predict, and write the output; no row reaches the driver."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from registry_tools.batch import scoring_job
from registry_tools.batch.predictions import BatchPredictor, prediction_type
from registry_tools.batch.readers.input_files import SUFFIXES, without_secrets
from registry_tools.batch.run_log import ScoringRun
from registry_tools.batch.scoring_job import ScoringSummary
from registry_tools.batch.spark_session import spark_session
from registry_tools.batch.spark_tasks import REJECTED, ROWS, AddCounts, Counts, ScoringTask, ShippedModel
from registry_tools.data.arrow_coercion import arrow_type, check_schema
from registry_tools.data.schema import Column, quoted_names
from registry_tools.data.temp_files import make_temp_folder
from registry_tools.errors import InputError
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.mlflow_store.client import connect
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy
from registry_tools.refs import ModelRef

_FILE, _EXTRA = "__registry_tools_file", "__registry_tools_extra"
# A quoted value may hold line ends, so that Spark does not split a CSV between tasks.
_CSV = {"multiLine": "true", "quote": '"', "escape": '"'}
_READ = {"header": "true", "enforceSchema": "false", "columnNameOfCorruptRecord": _EXTRA}
_WRITE = {
    "header": "true",
    "nullValue": "",
    "emptyValue": "",
    "ignoreLeadingWhiteSpace": "false",
    "ignoreTrailingWhiteSpace": "false",
}
_SUCCESS = "_SUCCESS"  # Hadoop's mark of a folder that is complete


@dataclass(frozen=True)
class SparkRequest:
    """The request of a user; the addresses are those that the executors reach."""

    ref: ModelRef
    input: str
    output: str
    master: str
    rejects: str | None = None
    proba: bool = False
    keep: tuple[str, ...] | None = None  # columns of the input that are written; None keeps all
    prefix: str = ""


@dataclass(frozen=True)
class _Table:
    """The input as Spark reads it: its columns, then those of `ScoringTask`."""

    frame: DataFrame
    columns: StructType
    text: bool  # whether it is CSV


def score(request: SparkRequest, policy: TrustPolicy, tracking_uri: str | None = None) -> ScoringSummary:
    """Score a table on the executors of Spark with the version that a reference means now.

    Raises
    ------
    InputError
        If the table does not fit the signature, a row cannot be scored and there are no rejects, or
        the output cannot be written. Nothing is written then.
    RegistryToolsError
        As `load_model`; or if Spark fails.
    """
    with contextlib.ExitStack() as stack:
        client = connect(tracking_uri)
        fetcher = ArtifactFetcher(request.ref, policy, tracking_uri, None)
        stack.callback(fetcher.close)
        version = fetcher.resolve()  # the one that predicts, wherever the stage moves meanwhile
        artifact = fetcher.fetch(version)
        columns = scoring_job.signature_columns(artifact)
        predictor = BatchPredictor(load(artifact, policy), request.proba, text=False)
        added = _added_columns(predictor, request.prefix)
        spark = stack.enter_context(spark_session(request.master))
        table = _open_table(spark, request.input)
        _check_columns(request, table, columns, added)
        scratch = stack.enter_context(_scratch())
        model = _ship(spark, artifact, policy, scratch, request.proba, table.text)
        record = ScoringRun(client, version.name, _run_tags(request, artifact))
        with scoring_job.end_run_on_error(record):
            began = time.perf_counter()
            counts = _run(spark, request, table, model, columns, added)
            return _summary(request, artifact, counts, time.perf_counter() - began, record)


def _open_table(spark: SparkSession, address: str) -> _Table:
    """Find CSV or Parquet at an address, and read its columns and no row.

    Raises
    ------
    InputError
        If there is neither or both, or a column occurs twice.
    """
    found = {}
    for kind in ("csv", "parquet"):
        endings = ",".join(suffix for suffix, its_kind in SUFFIXES.items() if its_kind == kind)
        options = {"recursiveFileLookup": "true", "pathGlobFilter": f"*{{{endings}}}"}
        files = spark.read.format("binaryFile").options(**options).load(address)
        if not files.select("path").isEmpty():
            found[kind] = options
    where = without_secrets(address)
    if len(found) > 1:
        raise InputError(f"{where}: CSV and Parquet stand side by side: score them one by one")
    if not found:
        raise InputError(f"{where}: no file there ends with {', '.join(SUFFIXES)}")
    ((kind, options),) = found.items()
    if kind == "csv":
        reader = spark.read.options(**options, **_CSV)
        header = reader.csv(address).head() or [""]
        columns = StructType([StructField(name or "", StringType()) for name in header])
        frame = reader.options(**_READ).schema(StructType([*columns, StructField(_EXTRA, StringType())]))
        frame = frame.csv(address)
        extra = sql.col(_EXTRA)
    else:
        frame = spark.read.options(**options, mergeSchema="true").parquet(address)
        columns, extra = frame.schema, frame.metadataColumn("_metadata")["row_index"]
    doubled = [name for name, count in Counter(columns.names).items() if count > 1]
    if doubled:
        raise InputError(f"{where}: column {doubled[0]!r} stands twice: rename or drop one")
    file = frame.metadataColumn("_metadata")["file_path"].alias(_FILE)
    return _Table(
        frame.select(*map(_named, columns.names), file, extra.alias(_EXTRA)), columns, kind == "csv"
    )


def _named(name: str) -> Any:
    """Return a column by its name, which may hold any character."""
    return sql.col(f"`{name.replace('`', '``')}`")


def _added_columns(predictor: BatchPredictor, prefix: str) -> dict[str, pa.DataType]:
    """Return the columns that the output adds, and their types."""
    added = {
        "prediction": prediction_type(predictor.predictor),
        "prediction_name": pa.string(),
        "model_version": pa.int32(),
        **dict.fromkeys(predictor.probability_columns(), pa.float64()),
    }
    return {f"{prefix}{name}": kind for name, kind in added.items()}


def _check_columns(
    request: SparkRequest, table: _Table, columns: tuple[Column, ...], added: dict[str, pa.DataType]
) -> None:
    where = without_secrets(request.input)
    check_schema(to_arrow_schema(table.columns), columns, where, table.text)
    taken = [name for name in (*added, "reason") if name in table.columns.names]
    if taken:
        raise InputError(
            f"{where}: it already has {quoted_names(taken)}, which the output adds: use --prefix"
        )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    folder = make_temp_folder("scoring")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ship(
    spark: SparkSession, artifact: ModelArtifact, policy: TrustPolicy, scratch: Path, proba: bool, text: bool
) -> ShippedModel:
    """Give the verified files of a version to all executors, which unpack them."""
    archive = shutil.make_archive(str(scratch / "model"), "zip", artifact.folder)
    spark.sparkContext.addArchive(f"{archive}#registry_tools_model")
    digest = manifest.digest_of(manifest.manifest_of(Path(artifact.folder)))
    policy = dataclasses.replace(policy, public_key=None)  # the signature was checked here
    return ShippedModel("registry_tools_model", digest, artifact, policy, proba, text)


def _run(
    spark: SparkSession,
    request: SparkRequest,
    table: _Table,
    model: ShippedModel,
    columns: tuple[Column, ...],
    added: dict[str, pa.DataType],
) -> Counts:
    """Score all rows; return the counts of `ScoringTask`."""
    counts = spark.sparkContext.accumulator(Counter(), AddCounts())
    carried = StructType([f for f in table.columns if request.keep is None or f.name in request.keep])
    csv_output = _is_csv(request.output)
    converted = table.text and not csv_output
    types = {c.name: arrow_type(c) for c in columns} if converted else {}
    fields = [(f.name, from_arrow_type(kind) if (kind := types.get(f.name)) else f.dataType) for f in carried]
    fields += [(name, from_arrow_type(kind)) for name, kind in added.items()]
    schema = _schema(fields, csv_output)
    task = ScoringTask(
        model=model,
        carried=tuple(carried.names),
        converted=converted,
        prefix=request.prefix,
        schema=to_arrow_schema(schema),
        counts=counts,
        rejects=request.rejects is not None,
    )
    with contextlib.ExitStack() as stack:
        # The folder that is entered first gets its name last: where the output is, all is.
        output = stack.enter_context(_output_folder(spark, request.output, request.input))
        if request.rejects is not None:
            rejects = stack.enter_context(_output_folder(spark, request.rejects, request.input))
        names = list(
            dict.fromkeys([*carried.names, *(c.name for c in columns if c.name in table.columns.names)])
        )
        frame = table.frame.select(*map(_named, [*names, _FILE, _EXTRA]))
        _write(frame.mapInArrow(task.score, schema), output, csv_output)
        if request.rejects is not None:
            frame = table.frame if counts.value[REJECTED] else table.frame.limit(0)
            schema = _schema(
                [*((f.name, f.dataType) for f in table.columns), ("reason", StringType())], csv_output
            )
            task = dataclasses.replace(task, schema=to_arrow_schema(schema), counts=None)
            _write(frame.mapInArrow(task.reject, schema), rejects, csv_output)
    return counts.value


def _schema(fields: list[tuple[str, Any]], as_text: bool) -> StructType:
    # Arrow writes numbers as the local engine does, and Java does not.
    return StructType([StructField(name, StringType() if as_text else kind) for name, kind in fields])


def _is_csv(address: str) -> bool:
    return address.rstrip("/").lower().endswith(".csv")


def _write(frame: DataFrame, folder: str, as_csv: bool) -> None:
    if as_csv:
        frame.write.options(**_CSV, **_WRITE).csv(folder)
    else:
        frame.write.parquet(folder)


@contextlib.contextmanager
def _output_folder(spark: SparkSession, address: str, given: str) -> Iterator[str]:
    """Yield a temporary folder beside an address; it gets that name when the body is done.

    Raises
    ------
    InputError
        If the input is there, or anything that is not the output of an earlier job.
    """
    hadoop = spark._jvm.org.apache.hadoop.fs
    target = hadoop.Path(address)
    system = target.getFileSystem(spark._jsc.hadoopConfiguration())
    target, source = system.makeQualified(target), system.makeQualified(hadoop.Path(given))
    if f"{target}/".startswith(f"{source}/") or f"{source}/".startswith(f"{target}/"):
        raise InputError(f"{address}: the input is there as well: name another output")
    if system.exists(target) and not system.exists(hadoop.Path(target, _SUCCESS)):
        raise InputError(
            f"{address}: it exists, and is not a folder that `score` completed: name another output"
        )
    prefix = f".{target.getName()}.{spark.sparkContext.applicationId}"
    partial, old = (hadoop.Path(target.getParent(), f"{prefix}.{end}") for end in ("part", "old"))
    try:
        yield partial.toString()
        replaces = system.exists(target) and system.rename(target, old)
        if not system.rename(partial, target):
            if replaces:
                system.rename(old, target)
            raise InputError(f"{address}: cannot be written: the file system does not rename {partial}")
        system.create(hadoop.Path(target, _SUCCESS)).close()
    finally:
        for leftover in (partial, old):
            system.delete(leftover, True)


def _run_tags(request: SparkRequest, artifact: ModelArtifact) -> dict[str, str]:
    given = without_secrets(request.input)
    tags = {
        "model": artifact.name,
        "version": str(artifact.version),
        "stage": artifact.stage or "",
        "digest": artifact.digest or "",
        "input": given,
        "output": without_secrets(request.output),
        "engine": "spark",
        "mlflow.runName": f"{artifact} on {Path(given).name}",
    }
    return {name: value for name, value in tags.items() if value}


def _summary(
    request: SparkRequest, artifact: ModelArtifact, counts: Counts, seconds: float, record: ScoringRun
) -> ScoringSummary:
    classes = {key[0]: count for key, count in sorted(counts.items(), key=str) if isinstance(key, tuple)}
    rows, rejected = counts[ROWS], counts[REJECTED]
    rate = (rows + rejected) / max(seconds, 1e-9)
    record.finish({"rows": rows, "rejected": rejected, "seconds": seconds, "rows_per_second": rate}, classes)
    return ScoringSummary(
        name=artifact.name,
        version=artifact.version,
        stage=request.ref.stage,
        input=without_secrets(request.input),
        output=without_secrets(request.output),
        rows=rows,
        rejected=rejected,
        rejects=request.rejects and without_secrets(request.rejects),
        seconds=seconds,
        rows_per_second=rate,
        counts=classes,
        experiment=record.experiment,
        run_id=record.run_id,
    )
