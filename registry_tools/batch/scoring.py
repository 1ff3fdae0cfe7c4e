"""One batch scoring: files in, one file out, whole or not at all, recorded as a run."""

from __future__ import annotations

import contextlib
import csv
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from registry_tools import connection
from registry_tools.batch import output
from registry_tools.batch.answers import counts_of
from registry_tools.batch.columns import arrow_of, arrow_type, check, check_schema
from registry_tools.batch.files import (
    BATCH_ROWS,
    BLOCK_BYTES,
    SUFFIXES,
    Batch,
    Files,
    open_files,
    without_secrets,
)
from registry_tools.batch.pool import Engine, Pool, cores
from registry_tools.batch.record import Record
from registry_tools.errors import InputError, RegistryToolsError, UnsupportedOperation
from registry_tools.formats import TrustPolicy, describe
from registry_tools.refs import ModelRef
from registry_tools.serving.source import Source
from registry_tools.serving.sources import Sources
from registry_tools.signature import Column, names_in_words

REASON = "reason"
Progress = Callable[[int, int], None]  # how much of `Files.total` is done; rows


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    ref: ModelRef
    input: str  # a file, a folder of files, or a URL
    output: Path
    rejects: Path | None = None  # where rows go that cannot be scored; None fails on the first
    proba: bool = False
    workers: int | None = None  # None takes all cores
    master: str | None = None  # of Spark, which answers then


@dataclass(frozen=True)
class Summary:
    """What came of it."""

    name: str
    version: int
    stage: str | None
    input: str
    output: str
    rows: int  # that were scored
    rejected: int
    rejects: str | None
    seconds: float  # from the first row read to the output in its place
    rows_per_second: float
    counts: Mapping[str, int]  # rows by class; empty where numbers are predicted
    experiment: str
    run_id: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


@dataclass
class Tally:
    """What has been counted so far."""

    rows: int = 0
    rejected: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def score(
    request: Request,
    policy: TrustPolicy,
    tracking_uri: str | None = None,
    begin: Callable[[Files], Progress] = lambda files: lambda done, rows: None,
) -> Summary:
    """Score files with the version that a reference means now.

    Parameters
    ----------
    request, policy, tracking_uri
        What is asked for, what the model may contain, and where the registry is.
    begin
        Is told of the files before the first row is read; returns what is told of the progress.

    Raises
    ------
    InputError
        If the files do not fit the signature or each other, a row cannot be scored and there is
        no file of rejects, or the output cannot be written. Nothing stands under its name then.
    RegistryToolsError
        As `load_model`.
    """
    files = open_files(request.input)
    _check_places(request, files)
    with contextlib.ExitStack() as stack:
        engine = _engine(request, files)
        stack.callback(engine.close)
        client = connection.connect(tracking_uri)
        sources = Sources(request.ref, policy, tracking_uri, None)
        stack.callback(sources.close)
        version = sources.look()  # the one that answers, wherever the stage moves meanwhile
        source = sources.fetch(version)
        columns = _columns(source)
        for shown in files.shown[:1]:
            check_schema(files.schema, columns, shown, files.is_text)
        _check_taken(files, ["prediction", "prediction_name", "model_version"])
        record = Record(client, version.name, _tags(request, source))
        with _recorded(record):
            added = engine.load(source, policy, request.proba, files.is_text)
            _check_taken(files, added)
            task = _Task(request, files, columns, source, engine, added)
            began = time.perf_counter()
            tally = task.run(begin(files))
            seconds = time.perf_counter() - began
            figures = {
                "rows": tally.rows,
                "rejected": tally.rejected,
                "seconds": seconds,
                "rows_per_second": (tally.rows + tally.rejected) / max(seconds, 1e-9),
            }
            record.done(figures, tally.counts)
        return Summary(
            name=version.name,
            version=version.version,
            stage=request.ref.stage,
            input=without_secrets(request.input),
            output=str(request.output),
            rows=tally.rows,
            rejected=tally.rejected,
            rejects=str(request.rejects) if request.rejects else None,
            seconds=seconds,
            rows_per_second=figures["rows_per_second"],
            counts=dict(sorted(tally.counts.items())),
            experiment=record.experiment,
            run_id=record.run_id,
        )


def _engine(request: Request, files: Files) -> Engine:
    if request.master is None:
        return Pool(_workers(request, files))
    from registry_tools.batch.spark import SparkAnswers

    return SparkAnswers(request.master)


def _workers(request: Request, files: Files) -> int:
    """Return how many processes are worth starting."""
    wanted = request.workers or cores()
    batches = files.total // (BLOCK_BYTES if files.is_text else BATCH_ROWS) + 1
    return max(1, min(wanted, batches))


@contextlib.contextmanager
def _recorded(record: Record) -> Iterator[None]:
    """End the run as what became of the scoring."""
    try:
        yield
    except RegistryToolsError as error:
        record.failed("FAILED", str(error))
        raise
    except BaseException as error:
        killed = isinstance(error, (KeyboardInterrupt, SystemExit))
        record.failed("KILLED" if killed else "FAILED", "interrupted" if killed else str(error))
        raise


def _columns(source: Source) -> tuple[Column, ...]:
    columns = describe(source.model).signature
    if columns is None:
        raise UnsupportedOperation(
            f"{source} does not name and type its columns, so that files cannot be compared with "
            "its signature: register it with one, or use predict"
        )
    return columns


def _check_places(request: Request, files: Files) -> None:
    """Refuse an output that is an input, or would be one the next time."""
    targets = [request.output, *([request.rejects] if request.rejects else [])]
    for target in targets:
        output.check_target(target)
        if "://" in request.input:
            continue
        given = Path(request.input).resolve()
        if target.resolve() in {given, *(Path(p).resolve() for p in files.paths)}:
            raise InputError(f"{target}: it is the input as well: name another output")
        if given.is_dir() and given in target.resolve().parents:
            raise InputError(
                f"{target}: it lies in the folder that is read, and would be input the next time: "
                "name another output"
            )
    if len({target.resolve() for target in targets}) < len(targets):
        raise InputError(f"{request.output}: output and rejects are the same file")
    if request.rejects is not None:
        _check_taken(files, [REASON])


def _check_taken(files: Files, added: list[str]) -> None:
    taken = [name for name in added if name in files.schema.names]
    if taken:
        raise InputError(
            f"{files.shown[0]}: it already has the column{'s' * (len(taken) > 1)} "
            f"{names_in_words(taken)}, which the output adds: rename or drop "
            f"{'them' if len(taken) > 1 else 'it'}"
        )


def _tags(request: Request, source: Source) -> dict[str, str]:
    return {
        "model": source.name,
        "version": str(source.version),
        **({"stage": source.stage} if source.stage else {}),
        **({"digest": source.digest} if source.digest else {}),
        "input": without_secrets(request.input),
        "output": str(request.output),
        "engine": "spark" if request.master is not None else "processes",
        "mlflow.runName": f"{source} on {Path(without_secrets(request.input)).name}",
    }


@dataclass(frozen=True)
class _Task:
    """Rows through the model into the output."""

    request: Request
    files: Files
    columns: tuple[Column, ...]
    source: Source
    answers: Engine
    added: list[str]  # columns of probabilities

    def run(self, progress: Progress) -> Tally:
        """Score all rows."""
        tally = Tally()
        rejects = self.request.rejects
        with contextlib.ExitStack() as stack:
            # The output comes last: where it stands, all stands.
            target = stack.enter_context(output.whole(self.request.output))
            refused = self._sink(stack, rejects, self._reject_schema()) if rejects else None
            sink: output.Sink | None = None
            for batch, (answers, bad) in self.answers.answer(
                self.files.batches(keep_broken=rejects is not None)
            ):
                if bad or batch.broken:
                    self._reject(batch, bad, refused)
                    tally.rejected += len(bad) + len(batch.broken)
                rows = self._output(batch, answers, bad)
                if sink is None:
                    sink = self._opened(stack, target, rows.schema)
                sink.write(rows)
                tally.rows += rows.num_rows
                tally.counts.update(counts_of(answers))
                progress(batch.done, tally.rows + tally.rejected)
            if sink is None:
                self._opened(stack, target, self._empty_schema())
        return tally

    def _sink(self, stack: contextlib.ExitStack, path: Path, schema: pa.Schema) -> output.Sink:
        return self._opened(stack, stack.enter_context(output.whole(path)), schema, path)

    def _opened(
        self,
        stack: contextlib.ExitStack,
        partial: Path,
        schema: pa.Schema,
        path: Path | None = None,
    ) -> output.Sink:
        form = SUFFIXES[(path or self.request.output).suffix.lower()]
        return stack.enter_context(
            contextlib.closing(output.sink(partial, form, schema, self.files.metadata))
        )

    def _output(self, batch: Batch, answers: pa.RecordBatch, bad: Mapping[int, str]) -> Any:
        """Return the rows that were scored with their answers beside."""
        rows = batch.rows
        if bad:
            good = [place not in bad for place in range(rows.num_rows)]
            rows = rows.filter(pa.array(good))
        arrays = dict(zip(rows.schema.names, rows.columns, strict=True))
        if self._is_typed:
            checked = check(rows, self.columns, text=True)
            arrays |= {c.name: arrow_of(checked, c) for c in self.columns if c.name in arrays}
        arrays["prediction"] = answers.column("prediction")
        arrays["prediction_name"] = answers.column("prediction_name").cast(pa.string())
        arrays["model_version"] = pa.repeat(pa.scalar(self.source.version, pa.int32()), len(rows))
        arrays |= {name: answers.column(name) for name in self.added}
        return pa.RecordBatch.from_arrays(
            list(arrays.values()), schema=self._schema(answers.column("prediction").type)
        )

    @property
    def _is_typed(self) -> bool:
        """Whether text becomes what the signature says."""
        return self.files.is_text and SUFFIXES[self.request.output.suffix.lower()] == "parquet"

    def _schema(self, prediction: pa.DataType) -> pa.Schema:
        types = {column.name: arrow_type(column) for column in self.columns}
        fields = [
            pa.field(f.name, types.get(f.name) or f.type) if self._is_typed else f
            for f in self.files.schema
        ]
        fields += [
            pa.field("prediction", prediction),
            pa.field("prediction_name", pa.string()),
            pa.field("model_version", pa.int32()),
            *(pa.field(name, pa.float64()) for name in self.added),
        ]
        return pa.schema(fields)

    def _empty_schema(self) -> pa.Schema:
        nothing = Batch("", 0, pa.RecordBatch.from_pylist([], schema=self.files.schema), 0)
        ((_, (answers, _)),) = self.answers.answer([nothing])
        return self._schema(answers.column("prediction").type)

    def _reject_schema(self) -> pa.Schema:
        return pa.schema([*self.files.schema, pa.field(REASON, pa.string())])

    def _reject(self, batch: Batch, bad: Mapping[int, str], refused: output.Sink | None) -> None:
        """Write the rows that cannot be scored with the reason, or fail on the first.

        Raises
        ------
        InputError
            If there is no file for them; names file, row, column and value.
        """
        reasons = {
            place: f"{batch.where}: row {batch.row_of(place)}: {bad[place]}"
            for place in sorted(bad)
        }
        if refused is None:
            raise InputError(
                f"{next(iter(reasons.values()))} (rows count from 0; --on-bad-row reject puts such "
                "rows into a file of their own)"
            )
        if reasons:
            rows = batch.rows.take(pa.array(list(reasons)))
            arrays = [*rows.columns, pa.array(list(reasons.values()), pa.string())]
            refused.write(pa.RecordBatch.from_arrays(arrays, schema=self._reject_schema()))
        for line in batch.broken:
            width = len(self.files.schema)
            values = [*next(csv.reader([line.text]), []), *[""] * width][:width]
            reason = f"{batch.where}: row {line.row}: {line.reason}"
            arrays = [pa.array([value], pa.string()) for value in [*values, reason]]
            refused.write(pa.RecordBatch.from_arrays(arrays, schema=self._reject_schema()))
