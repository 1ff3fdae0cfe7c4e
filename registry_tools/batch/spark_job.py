"""Scoring on Spark: executors read the table, predict, and write the output; no row reaches the driver."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from registry_tools import spark as spark_setup
from registry_tools.batch import worker
from registry_tools.batch.job import ScoringJob, SliceResult, kept_columns, refuse_existing_columns
from registry_tools.batch.job_context import fetched_version, recorded_run
from registry_tools.batch.request import ScoringRequest, ScoringSummary
from registry_tools.batch.spark_tasks import ARCHIVE, AddResults, SparkTask
from registry_tools.data.arrow_coercion import check_schema
from registry_tools.errors import InputError
from registry_tools.files import csv_rows, input_files
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.part_files import PARQUET
from registry_tools.files.temp_files import make_temp_folder
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy

_FILE, _EXTRA = "__registry_tools_file", "__registry_tools_extra"


def score(request: ScoringRequest, policy: TrustPolicy, tracking_uri: str | None = None) -> ScoringSummary:
    """Score a table on the executors of Spark with the version that a reference means now.

    Parameters
    ----------
    request, policy, tracking_uri
        As for the local engine, `scoring_job.score`. Output and rejects are the addresses of folders, as
        executors reach them.

    Raises
    ------
    InputError
        If the table does not fit the signature, a row cannot be scored and there are no rejects, or
        the output cannot be written. Nothing is written then.
    RegistryToolsError
        As `load_model`; or if Spark fails.
    """
    where = input_files.without_secrets(request.input)
    if request.output == request.rejects:
        raise InputError(f"{request.output}: output and rejects are the same folder")
    with contextlib.ExitStack() as stack:
        artifact, columns = stack.enter_context(fetched_version(request, policy, tracking_uri))
        policy = replace(policy, public_key=None)  # the signature was checked, and executors lack the key
        record = stack.enter_context(recorded_run(request, artifact, tracking_uri))
        predictions = worker.prediction_schema(artifact, policy, request.proba)
        worker.load.cache_clear()
        spark = stack.enter_context(spark_setup.session(request.master or "local[*]"))
        table, schema, form = _open_table(spark, request)
        check_schema(schema, columns, where, form is not None)
        keep = kept_columns(request, schema.names, where)
        rejects_form = PARQUET if request.rejects else None
        job = ScoringJob(request, artifact, policy, columns, schema, form, keep, PARQUET, rejects_form)
        added = job.output_schema(predictions)
        refuse_existing_columns(keep, added.names[len(keep) :], where)
        refuse_existing_columns(schema.names, job.rejects_schema.names[len(schema) :], where)
        began = time.perf_counter()
        total = _run(spark, job, table, added)
        return record.finish(total, time.perf_counter() - began)


def _open_table(
    spark: SparkSession, request: ScoringRequest
) -> tuple[DataFrame, pa.Schema, CsvFormat | None]:
    """Return the table with the columns of `SparkTask`, its schema, and its format if it is CSV.

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
    form = CsvFormat(request.separator, request.encoding) if "csv" in found[0]["pathGlobFilter"] else None
    if form is not None:
        # A quoted value may hold line ends, so that Spark does not split a CSV between tasks.
        options = {"multiLine": "true", "escape": '"', "sep": form.separator, "encoding": form.encoding}
        reader = spark.read.options(**found[0], **options)
        names = [name or "" for name in reader.csv(request.input).head() or [""]]
        input_files.refuse_doubled_columns(names, where)
        texts = StructType([StructField(name, StringType()) for name in (*names, _EXTRA)])
        reader = reader.options(header="true", enforceSchema="false", columnNameOfCorruptRecord=_EXTRA)
        frame = reader.schema(texts).csv(request.input)
        extra = sql.col(_EXTRA)
    else:
        frame = spark.read.options(**found[0], mergeSchema="true").parquet(request.input)
        names, extra = frame.columns, frame.metadataColumn("_metadata")["row_index"].alias(_EXTRA)
    file = frame.metadataColumn("_metadata")["file_path"].alias(_FILE)
    columns = [sql.col(_quoted(name)) for name in names]
    return frame.select(*columns, file, extra), to_arrow_schema(frame.select(*columns).schema), form


def _quoted(name: str) -> str:
    """Return how Spark names a column, whatever characters it has."""
    return f"`{name.replace('`', '``')}`"


def _run(spark: SparkSession, job: ScoringJob, table: DataFrame, schema: pa.Schema) -> SliceResult:
    """Ship the version to the executors, have them score all rows, and return how many there are."""
    given, output, rejects = job.request.input, job.request.output, job.request.rejects
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
        places = [output, rejects] if rejects else [output]
        partials = [stack.enter_context(spark_setup.output_folder(spark, each, given)) for each in places]
        frame.mapInArrow(task.score, from_arrow_schema(task.schema, True)).write.parquet(partials[0])
        if rejects:
            again = spark.sparkContext.accumulator(SliceResult(), AddResults())
            frame = frame if total.value.rejected else frame.limit(0)
            reject = replace(task, total=again).reject
            frame.mapInArrow(reject, from_arrow_schema(job.rejects_schema, True)).write.parquet(partials[1])
            if again.value.rejected != total.value.rejected:  # Spark read the table twice
                raise InputError(f"{given}: the table changed while it was scored: score it again")
    return total.value
