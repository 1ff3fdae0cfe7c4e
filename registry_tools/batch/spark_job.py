"""Scoring on Spark: executors read the table, predict, and write the output; no row reaches the driver."""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Accumulator, SparkFiles
from pyspark.accumulators import AddingAccumulatorParam
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StringType, StructField, StructType

from registry_tools import spark as spark_setup
from registry_tools.batch.job import RowCounts, ScoringJob, ScoringRequest, ScoringSummary, taken_columns
from registry_tools.batch.scored_batch import ScoredBatch, score_batch
from registry_tools.errors import InputError
from registry_tools.files import csv_rows, input_files
from registry_tools.files.addresses import without_secrets
from registry_tools.files.csv_rows import CsvFormat
from registry_tools.files.part_files import PARQUET
from registry_tools.files.temp_files import make_temp_folder
from registry_tools.inference import batch_predictor
from registry_tools.inference.batch_predictor import BatchPredictor
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.models import manifest

_FILE, _EXTRA = "__registry_tools_file", "__registry_tools_extra"
_ARCHIVE = "registry_tools_version"  # the folder of the version's files on an executor
_UNDECODED = "\ufffd"  # takes the place of bytes that are not in the encoding


def score(request: ScoringRequest, tracking_uri: str | None = None) -> ScoringSummary:
    """Score a table on the executors of Spark with the version that a reference means now.

    Parameters
    ----------
    request, tracking_uri
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
    # It imports MLflow, and the executors import this module.
    from registry_tools.batch.job_context import ScoringRun, fetched_version

    if request.output == request.rejects:
        raise InputError(f"{request.output}: output and rejects are the same folder")
    with contextlib.ExitStack() as stack:
        artifact, inputs = stack.enter_context(fetched_version(request, tracking_uri))
        # The signature was checked, and executors lack the key.
        request = replace(request, trust_policy=replace(request.trust_policy, public_key=None))
        run = stack.enter_context(ScoringRun(request, artifact, tracking_uri))
        added = batch_predictor.load(artifact, request.trust_policy, request.proba).schema
        spark = stack.enter_context(spark_setup.session(request.master or "local[*]"))
        where = without_secrets(request.input)
        table, schema, form = _open_table(spark, request, where)
        columns = taken_columns(inputs, schema, where)
        rejects_form = PARQUET if request.rejects else None
        job = ScoringJob(request, artifact, columns, where, schema, form, PARQUET, rejects_form)
        output = job.output_schema(added)
        began = time.perf_counter()
        total = _run(spark, job, table, output)
        return run.finish(total, time.perf_counter() - began)


def _open_table(
    spark: SparkSession, request: ScoringRequest, where: str
) -> tuple[DataFrame, pa.Schema, CsvFormat | None]:
    """Return the table with the columns of `SparkTask`, its schema, and its format if it is CSV.

    Raises
    ------
    InputError
        If there is neither CSV nor Parquet or both, or a column occurs twice.
    """
    found = {}
    for form, endings in ((request.csv, csv_rows.COMPRESSION), (None, input_files.PARQUET_ENDINGS)):
        options = {"recursiveFileLookup": "true", "pathGlobFilter": f"*{{{','.join(endings)}}}"}
        files = spark.read.format("binaryFile").options(**options).load(request.input)
        if not files.select("path").isEmpty():
            found[form] = options
    if len(found) != 1:
        kinds = ", ".join(input_files.ENDINGS)
        holds = "CSV and Parquet files: score them one by one" if found else f"no file that ends with {kinds}"
        raise InputError(f"{where}: the folder holds {holds}")
    ((form, options),) = found.items()
    if form is not None:
        # A quoted value may hold line ends, so that Spark does not split a CSV between tasks.
        options |= {"multiLine": "true", "escape": '"', "sep": form.separator, "encoding": form.encoding}
        reader = spark.read.options(**options)
        names = [name or "" for name in reader.csv(request.input).head() or [""]]
        input_files.refuse_doubled_columns(names, where)
        texts = StructType([StructField(name, StringType()) for name in (*names, _EXTRA)])
        reader = reader.options(header="true", enforceSchema="false", columnNameOfCorruptRecord=_EXTRA)
        frame = reader.schema(texts).csv(request.input)
        extra = sql.col(_EXTRA)
    else:
        request.csv.refuse_for_parquet(where)
        frame = spark.read.options(**options, mergeSchema="true").parquet(request.input)
        names, extra = frame.columns, frame.metadataColumn("_metadata")["row_index"].alias(_EXTRA)
    file = frame.metadataColumn("_metadata")["file_path"].alias(_FILE)
    columns = [sql.col(_quoted(name)) for name in names]
    return frame.select(*columns, file, extra), to_arrow_schema(frame.select(*columns).schema), form


def _quoted(name: str) -> str:
    """Return how Spark names a column, whatever characters it has."""
    return f"`{name.replace('`', '``')}`"


def _count_rows(spark: SparkSession) -> Accumulator[Any]:
    """Return an accumulator of rows; Spark takes one result of each partition, whatever it retries."""
    nothing: Any = RowCounts()  # pyspark's types want `+=` with any other value
    return spark.sparkContext.accumulator(nothing, AddingAccumulatorParam(nothing))


def _run(spark: SparkSession, job: ScoringJob, table: DataFrame, schema: pa.Schema) -> RowCounts:
    """Ship the version to the executors, have them score all rows, and return how many there are."""
    given, output, rejects = job.request.input, job.request.output, job.request.rejects
    digest = manifest.digest_of(manifest.manifest_of(Path(job.artifact.folder)))
    total = _count_rows(spark)
    plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    task = SparkTask(job, digest, pa.schema(plain), total)
    frame = table.select(*map(_quoted, [*job.read, _FILE, _EXTRA]))
    with contextlib.ExitStack() as stack:
        scratch = make_temp_folder("scoring")
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        archive = shutil.make_archive(str(scratch / "version"), "zip", job.artifact.folder)
        spark.sparkContext.addArchive(f"{archive}#{_ARCHIVE}")
        # The folder that is opened first gets its name last: where the output is, all is.
        places = [output, rejects] if rejects else [output]
        partials = [stack.enter_context(spark_setup.output_folder(spark, each, given)) for each in places]
        frame.mapInArrow(task.score, from_arrow_schema(task.schema, True)).write.parquet(partials[0])
        if rejects:
            again = _count_rows(spark)
            frame = frame if total.value.rejected else frame.limit(0)
            reject = replace(task, total=again).reject
            frame.mapInArrow(reject, from_arrow_schema(job.rejects_schema, True)).write.parquet(partials[1])
            if again.value.rejected != total.value.rejected:  # Spark read the table twice
                raise InputError(f"{given}: the table changed while it was scored: score it again")
    return total.value


@dataclass(frozen=True)
class SparkTask:
    """Scores the rows of one partition; Spark sends it to the executors as it is.

    A batch has the columns of the input that are read, then the file of each row, then its number in
    the file (Parquet) or, if it is malformed, its line (CSV).
    """

    job: ScoringJob
    digest: str  # of all files in the archive
    schema: pa.Schema  # of the output
    total: Any  # the accumulator that receives the `RowCounts` of each batch

    def score(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that can be scored, with their predictions.

        Raises
        ------
        InputError
            If a row cannot be scored, and rejects are not written.
        """
        return (rows for rows, *_ in self._score_all(batches))

    def reject(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that cannot be scored, with the reason."""
        return (rejects for _, rejects, _ in self._score_all(batches) if rejects is not None)

    def _score_all(self, batches: Iterator[pa.RecordBatch]) -> Iterator[ScoredBatch]:
        """Score the batches of the partition, and count their rows."""
        job = self.job
        predictor = _load_verified(job.artifact, self.digest, job.request)
        before: Counter[str] = Counter()  # rows of each file; Spark does not split a CSV
        for batch in batches:
            *columns, files, extra = batch.columns
            if job.csv is not None:
                columns = [pc.fill_null(column, "") for column in columns]  # Spark reads nothing as null
            rows = pa.RecordBatch.from_arrays(columns, job.read)
            malformed = _malformed_rows(rows, extra, job) if job.csv is not None else {}
            locate = functools.partial(_locate, files, before if job.csv else extra)
            scored = score_batch(job, predictor, rows, malformed, locate, self.schema)
            self.total.add(scored[-1])
            yield scored
            before.update({each["values"]: each["counts"] for each in pc.value_counts(files).to_pylist()})


@functools.lru_cache(1)
def _load_verified(artifact: ModelArtifact, digest: str, request: ScoringRequest) -> BatchPredictor:
    """Compare the files that arrived with their digest, and load them, once in this process."""
    folder = SparkFiles.get(_ARCHIVE)
    manifest.check_files(Path(folder), digest)
    return batch_predictor.load(replace(artifact, folder=folder), request.trust_policy, request.proba)


def _locate(files: pa.Array, numbers: pa.Array | Mapping[str, int], row: int) -> str:
    """Return the file and the number in it of a row of a batch.

    Parameters
    ----------
    files, numbers
        The file and the number of each row. For a CSV, how many rows of each file came before the batch.
    row
        The row of the batch.
    """
    file = files[row].as_py()
    if isinstance(numbers, pa.Array):
        number = numbers[row].as_py()
    else:
        number = numbers[file] + row - pc.index(files, file).as_py()
    name = re.sub(r"^file:(//)?(?=/)", "", unquote(file))  # as a user writes it
    return f"{name}: row {number}"


def _malformed_rows(rows: pa.RecordBatch, lines: pa.Array, job: ScoringJob) -> dict[int, str]:
    """Return which rows of a CSV have undecoded bytes or are no rows, and why."""
    malformed = csv_rows.undecoded_rows(rows, _UNDECODED)
    for row in pc.indices_nonzero(lines.is_valid()).to_pylist():
        count = len(csv_rows.split_line(lines[row].as_py(), job.request.csv))
        malformed[row] = f"{count} values, and the header names {len(job.schema)}"
    return malformed
