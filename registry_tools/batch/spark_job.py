"""Scoring on Spark: executors read the table, predict, and write the output; no row reaches the driver."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from registry_tools import errors
from registry_tools.batch import scoring_job, worker, writers
from registry_tools.batch.request import ScoringRequest, ScoringSummary
from registry_tools.batch.run_log import ScoringRun
from registry_tools.batch.spark_tasks import ARCHIVE, AddResults, SparkTask
from registry_tools.batch.worker import ScoringJob, SliceResult
from registry_tools.data import input_files
from registry_tools.data.arrow_coercion import check_schema
from registry_tools.data.csv_rows import COMPRESSION
from registry_tools.data.temp_files import make_temp_folder
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation
from registry_tools.inference.artifact_fetcher import ArtifactFetcher
from registry_tools.mlflow_store.client import connect
from registry_tools.models import manifest
from registry_tools.models.trust_policy import TrustPolicy

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FILE, _EXTRA = "__registry_tools_file", "__registry_tools_extra"
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.log.level": "FATAL",  # an error is reported in one line
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.legacy.javaCharsets": "true",  # for --encoding cp1252
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # Otherwise a malformed line is a row if its last columns are not read.
    "spark.sql.csv.parser.columnPruning.enabled": "false",
    # A folder is marked as complete after it has its name.
    "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
}


def check_installed() -> None:
    """Refuse to begin where Spark cannot run.

    Raises
    ------
    UnsupportedOperation
        If pyspark or Java is missing; says how to install it.
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
    check_installed()
    where = input_files.without_secrets(request.input)
    with contextlib.ExitStack() as stack:
        client = connect(tracking_uri)
        fetcher = ArtifactFetcher(request.ref, policy, tracking_uri, None)
        stack.callback(fetcher.close)
        artifact = fetcher.fetch(fetcher.resolve())  # whose version predicts, wherever the stage moves
        columns = scoring_job.signature_columns(artifact)
        policy = replace(policy, public_key=None)  # the signature was checked, and executors lack the key
        tags = scoring_job.run_tags(request, artifact) | {"output": output}
        record = stack.enter_context(ScoringRun(client, artifact.name, tags))
        predictions = worker.prediction_schema(artifact, policy, request.proba, csv=False)
        spark = stack.enter_context(_session(request.master or "local[*]"))
        table, schema, text = _open_table(spark, request)
        check_schema(schema, columns, where, text)
        job = ScoringJob(
            artifact=artifact,
            policy=policy,
            proba=request.proba,
            csv=text,
            columns=columns,
            schema=schema,
            keep=scoring_job.kept_columns(request, schema.names, where),
            prefix=request.prefix,
            form=writers.PARQUET,
            rejects_form=writers.PARQUET if rejects else None,
        )
        added = job.output_schema(predictions)
        scoring_job.refuse_existing_columns(job.keep, added.names[len(job.keep) :], where)
        scoring_job.refuse_existing_columns(schema.names, job.rejects_schema.names[len(schema) :], where)
        began = time.perf_counter()
        total = _run(spark, job, table, added, (request.input, output, rejects))
        summary = scoring_job.finish(record, request, artifact, total, time.perf_counter() - began)
        return replace(summary, output=output, rejects=rejects)


@contextlib.contextmanager
def _session(master: str) -> Iterator[SparkSession]:
    """Start Spark, and stop it after the body; its errors become those of this package."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark would take any `python3`
    settings = _SETTINGS | {"spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower()}
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")  # Spark warns of pandas 3
        try:
            builder = SparkSession.builder.master(master).appName("registry-tools score")
            spark = stack.enter_context(builder.config(map=settings).getOrCreate())
            yield spark
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"py4j", "pyspark"}:
                raise
            raise _translate(str(error), master) from error


def _translate(trace: str, master: str) -> RegistryToolsError:
    """Return the error that a trace of Java and Python ends with."""
    raised = re.findall(r"^registry_tools\.errors\.(\w+): (.*)$", trace, re.MULTILINE)
    if raised:
        name, message = raised[-1]
        return getattr(errors, name, RegistryToolsError)(message)
    lacking = re.search(r"No module named '\S+'|Cannot run program \S+|Python in worker has \D+[\d.]+", trace)
    if lacking:
        return UnsupportedOperation(
            f"the executors of Spark at {master} cannot score ({lacking[0]}): install the packages of this "
            "machine on them, and name their interpreter in PYSPARK_PYTHON"
        )
    missing = re.search(r"\[PATH_NOT_FOUND\] Path does not exist: (\S+?)\.? SQLSTATE", trace)
    if missing:
        return InputError(f"{missing[1]}: there is no such file or folder")
    if "stopped SparkContext" in trace:
        return RegistryToolsError(f"Spark at {master} does not answer: check --master")
    lines = [line.strip() for line in trace.splitlines() if line.strip()] or ["no reason given"]
    named = [line for line in lines if "Error: " in line or "Exception: " in line]
    return RegistryToolsError(f"Spark at {master} failed: {(named[-1] if named else lines[0])[:300]}")


def _open_table(spark: SparkSession, request: ScoringRequest) -> tuple[DataFrame, pa.Schema, bool]:
    """Return the table with the columns of `SparkTask`, its schema, and whether it is CSV.

    Raises
    ------
    InputError
        If there is neither CSV nor Parquet or both, or a column occurs twice.
    """
    from pyspark.sql import functions as sql
    from pyspark.sql.pandas.types import to_arrow_schema
    from pyspark.sql.types import StringType, StructType

    where = input_files.without_secrets(request.input)
    found = []
    for endings in (COMPRESSION, input_files.PARQUET_ENDINGS):
        options = {"recursiveFileLookup": "true", "pathGlobFilter": f"*{{{','.join(endings)}}}"}
        files = spark.read.format("binaryFile").options(**options).load(request.input)
        found += [] if files.select("path").isEmpty() else [options]
    if len(found) != 1:
        kinds = (
            "CSV and Parquet files" if found else f"no file that ends with {', '.join(input_files.ENDINGS)}"
        )
        raise InputError(f"{where}: the folder holds {kinds}")
    text = "csv" in found[0]["pathGlobFilter"]
    if text:
        # A quoted value may hold line ends, so that Spark does not split a CSV between tasks.
        form = {"multiLine": "true", "escape": '"', "sep": request.separator, "encoding": request.encoding}
        reader = spark.read.options(**found[0], **form)
        names = [name or "" for name in reader.csv(request.input).head() or [""]]
        schema = StructType()
        for name in (*names, _EXTRA):
            schema = schema.add(name, StringType())
        reader = reader.options(header="true", enforceSchema="false", columnNameOfCorruptRecord=_EXTRA)
        frame = reader.schema(schema).csv(request.input)
        extra = sql.col(_EXTRA)
    else:
        frame = spark.read.options(**found[0], mergeSchema="true").parquet(request.input)
        names, extra = frame.columns, frame.metadataColumn("_metadata")["row_index"].alias(_EXTRA)
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(f"{where}: column {doubled[0]!r} stands twice: rename or drop one")
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
    from pyspark.sql.pandas.types import from_arrow_schema

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
        partial = stack.enter_context(_output_folder(spark, output, given))
        partial_rejects = stack.enter_context(_output_folder(spark, rejects, given)) if rejects else None
        frame.mapInArrow(task.score, from_arrow_schema(task.schema, True)).write.parquet(partial)
        if partial_rejects:
            frame = frame if total.value.rejected else frame.limit(0)
            frame = frame.mapInArrow(task.reject, from_arrow_schema(job.rejects_schema, True))
            frame.write.parquet(partial_rejects)
    return total.value


@contextlib.contextmanager
def _output_folder(spark: Any, address: str, given: str) -> Iterator[str]:
    """Yield a temporary folder beside an address; it gets that name when the body is done.

    Raises
    ------
    InputError
        If the input is there, or anything else but an empty folder.
    """
    hadoop = spark._jvm.org.apache.hadoop.fs
    system = hadoop.Path(address).getFileSystem(spark._jsc.hadoopConfiguration())
    target, source = (system.makeQualified(hadoop.Path(path)) for path in (address, given))
    if f"{target}/".startswith(f"{source}/"):
        raise InputError(f"{address}: the input is there as well: name another output")
    if system.exists(target) and (system.getFileStatus(target).isFile() or system.listStatus(target)):
        raise InputError(f"{address} exists and is not an empty folder: remove it, or choose another path")
    name = f".{target.getName()}.{spark.sparkContext.applicationId}.part"
    partial = hadoop.Path(target.getParent(), name)
    try:
        yield partial.toString()
        system.delete(target, False)
        if not system.rename(partial, target):
            raise InputError(f"{address}: cannot be written: {partial} cannot be renamed")
        system.create(hadoop.Path(target, "_SUCCESS")).close()
    finally:
        system.delete(partial, True)
