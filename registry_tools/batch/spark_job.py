"""Scoring on Spark: executors read the table, predict, and write the output; no row reaches the driver."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import sklearn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StringType, StructType

from registry_tools import spark as spark_setup
from registry_tools.batch import scoring_job, worker
from registry_tools.batch.job import ScoringJob, SliceResult
from registry_tools.batch.request import ScoringRequest, ScoringSummary
from registry_tools.batch.run_log import ScoringRun
from registry_tools.batch.spark_tasks import ARCHIVE, AddResults, SparkTask
from registry_tools.data.arrow_coercion import check_schema
from registry_tools.errors import InputError
from registry_tools.files import csv_rows, input_files
from registry_tools.files.part_files import PARQUET
from registry_tools.files.temp_files import make_temp_folder
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.mlflow_store.client import connect
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy

_FILE, _EXTRA = "__registry_tools_file", "__registry_tools_extra"


def score(
    request: ScoringRequest,
    output: str,
    rejects: str | None,
    policy: TrustPolicy,
    tracking_uri: str | None = None,
) -> ScoringSummary:
    """Score a table on the executors of Spark with the version that a reference means now.

    Parameters
    ----------
    request, policy, tracking_uri
        As for the local engine, `scoring_job.score`.
    output, rejects
        The addresses of folders, as executors reach them; the paths of the request cannot hold a URL.
        Without rejects, a row that cannot be scored fails the job.

    Raises
    ------
    InputError
        If the table does not fit the signature, a row cannot be scored and there are no rejects, or
        the output cannot be written. Nothing is written then.
    RegistryToolsError
        As `load_model`; or if Spark fails.
    """
    where = input_files.without_secrets(request.input)
    if output == rejects:
        raise InputError(f"{output}: output and rejects are the same folder")
    with contextlib.ExitStack() as stack:
        client = connect(tracking_uri)
        fetcher = ArtifactFetcher(request.ref, policy, tracking_uri, None)
        stack.callback(fetcher.close)
        artifact = fetcher.fetch(fetcher.resolve())  # whose version predicts, wherever the stage moves
        columns = scoring_job.signature_columns(artifact)
        policy = replace(policy, public_key=None)  # the signature was checked, and executors lack the key
        tags = scoring_job.run_tags(request, artifact) | {"output": output}
        record = stack.enter_context(ScoringRun(client, artifact.name, tags))
        with sklearn.config_context():  # which the worker changes for its whole process
            predictions = worker.prediction_schema(artifact, policy, request.proba, csv=False)
            worker.load.cache_clear()
        spark = stack.enter_context(spark_setup.session(request.master or "local[*]"))
        table, schema, text = _open_table(spark, request)
        check_schema(schema, columns, where, text)
        keep = scoring_job.kept_columns(request, schema.names, where)
        job = ScoringJob(
            *(artifact, policy, request.proba, text, columns, schema, keep, request.prefix),
            *(PARQUET, PARQUET if rejects else None),
        )
        added = job.output_schema(predictions)
        scoring_job.refuse_existing_columns(keep, added.names[len(keep) :], where)
        scoring_job.refuse_existing_columns(schema.names, job.rejects_schema.names[len(schema) :], where)
        began = time.perf_counter()
        total = _run(spark, job, table, added, (request.input, output, rejects))
        summary = scoring_job.finish(record, request, artifact, total, time.perf_counter() - began)
        return replace(summary, output=output, rejects=rejects)


def _open_table(spark: SparkSession, request: ScoringRequest) -> tuple[DataFrame, pa.Schema, bool]:
    """Return the table with the columns of `SparkTask`, its schema, and whether it is CSV.

    Raises
    ------
    InputError
        If there is neither CSV nor Parquet or both, or a column occurs twice.
    """
    where = input_files.without_secrets(request.input)
    found = []
    for endings in (csv_rows.COMPRESSION, input_files.PARQUET_ENDINGS):
        options = {"recursiveFileLookup": "true", "pathGlobFilter": f"*{{{','.join(endings)}}}"}
        files = spark.read.format("binaryFile").options(**options).load(request.input)
        found += [] if files.select("path").isEmpty() else [options]
    if len(found) != 1:
        kinds = ", ".join(input_files.ENDINGS)
        holds = "CSV and Parquet files: score them one by one" if found else f"no file that ends with {kinds}"
        raise InputError(f"{where}: the folder holds {holds}")
    text = "csv" in found[0]["pathGlobFilter"]
    if text:
        # A quoted value may hold line ends, so that Spark does not split a CSV between tasks.
        form = {"multiLine": "true", "escape": '"', "sep": request.separator, "encoding": request.encoding}
        reader = spark.read.options(**found[0], **form)
        names = [name or "" for name in reader.csv(request.input).head() or [""]]
        doubled = [name for name, count in Counter(names).items() if count > 1]
        if doubled:
            raise InputError(f"{where}: column {doubled[0]!r} stands twice: rename or drop one")
        schema = StructType()
        for name in (*names, _EXTRA):
            schema = schema.add(name, StringType())
        reader = reader.options(header="true", enforceSchema="false", columnNameOfCorruptRecord=_EXTRA)
        frame = reader.schema(schema).csv(request.input)
        extra = sql.col(_EXTRA)
    else:
        frame = spark.read.options(**found[0], mergeSchema="true").parquet(request.input)
        names, extra = frame.columns, frame.metadataColumn("_metadata")["row_index"].alias(_EXTRA)
    file = frame.metadataColumn("_metadata")["file_path"].alias(_FILE)
    frame = frame.select(*map(_quoted, names), file, extra)
    return frame, to_arrow_schema(frame.select(*map(_quoted, names)).schema), text


def _quoted(name: str) -> str:
    """Return how Spark names a column, whatever characters it has."""
    return f"`{name.replace('`', '``')}`"


def _run(
    spark: SparkSession,
    job: ScoringJob,
    table: DataFrame,
    schema: pa.Schema,
    addresses: tuple[str, str, str | None],
) -> SliceResult:
    """Ship the version to the executors, have them score all rows, and return how many there are."""
    digest = manifest.digest_of(manifest.manifest_of(Path(job.artifact.folder)))
    total = spark.sparkContext.accumulator(SliceResult(), AddResults())
    plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    task = SparkTask(job, digest, pa.schema(plain), total)
    frame = table.select(*map(_quoted, [*job.read, _FILE, _EXTRA]))
    with contextlib.ExitStack() as stack:
        scratch = make_temp_folder("scoring")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        archive = shutil.make_archive(str(scratch / "version"), "zip", job.artifact.folder)
        spark.sparkContext.addArchive(f"{archive}#{ARCHIVE}")
        # The folder that is opened first gets its name last: where the output is, all is.
        given, output, rejects = addresses
        places = [output, rejects] if rejects else [output]
        partials = [stack.enter_context(spark_setup.output_folder(spark, each, given)) for each in places]
        frame.mapInArrow(task.score, from_arrow_schema(task.schema, True)).write.parquet(partials[0])
        if rejects:
            again = spark.sparkContext.accumulator(SliceResult(), AddResults())
            reject = replace(task, total=again).reject
            frame = frame if total.value.rejected else frame.limit(0)
            frame.mapInArrow(reject, from_arrow_schema(job.rejects_schema, True)).write.parquet(partials[1])
            if again.value.rejected != total.value.rejected:  # Spark read the table twice
                raise InputError(f"{given}: the table changed while it was scored: score it again")
    return total.value
