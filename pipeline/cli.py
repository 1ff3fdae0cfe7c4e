"""The command line `python -m pipeline`, which the entry points of MLproject call.

Each command turns its options into a parameter class, calls one function of the pipeline, and prints
the result.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from pipeline.errors import Interrupted, PipelineError
from pipeline.params.config_file import read_config
from pipeline.params.definitions import MonitorParams, SweepParams, TrainParams
from pipeline.params.types import Params, ParamsType, as_text, bounds_of
from pipeline.result_text import monitor_lines, sweep_json, sweep_lines, train_lines
from registry_tools.cli import exit_codes, process_setup
from registry_tools.cli.options import OrderedGroup, verbose_option
from registry_tools.cli.output import echo, print_json, shows_progress
from registry_tools.errors import RegistryToolsError

_USAGE, _DRIFT = 2, 4  # exit codes


def _parameters(cls: type[Params]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the option --config, and an option for each parameter; the class checks the values."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(cls.model_fields.items()):
            default = as_text(field.default)
            function = click.option(
                f"--{name.replace('_', '-')}",
                name,
                metavar="VALUE",
                help=f"{field.description} VALUE is {bounds_of(field)}. Default: {default}.",
            )(function)
        return click.option(
            "--config", metavar="FILE", help="Parameters by name in a YAML file; the options override them."
        )(function)

    return decorate


def _read(cls: type[ParamsType], config: str | None, texts: Mapping[str, str | None]) -> ParamsType:
    """Return the parameters of a configuration file and of the options, which override the file."""
    given = {name: text for name, text in texts.items() if text is not None}
    return cls(**(read_config(config) if config is not None else {}) | given)


@click.group(cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train a model, log it to MLflow and register it."""


@cli.command()
@_parameters(TrainParams)
@verbose_option
@shows_progress
def train(config: str | None, **texts: str | None) -> None:
    """Train a model and register it.

    The command evaluates the model on held-out rows, logs everything to MLflow, registers a version and
    sets its stage.
    """
    params = _read(TrainParams, config, texts)
    from pipeline.training.train import train as train_model

    process_setup.imports_done()
    with process_setup.ended_by_signals():
        result = train_model(params)
    _print_lines(train_lines(result))


@cli.command()
@_parameters(SweepParams)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@verbose_option
def sweep(as_json: bool, config: str | None, **texts: str | None) -> None:
    """Try many estimators by cross-validation, then train, log and register the best.

    After an interruption or a kill, the same command continues with the rest; with more trials, it extends
    a finished sweep.
    """
    params = _read(SweepParams, config, texts)
    from pipeline.sweep.sweep import sweep as run_sweep

    process_setup.imports_done()
    bar: Any  # click does not export its type
    with click.progressbar(
        length=params.n_trials, label="trials", show_pos=True,
        item_show_func=lambda best: "" if best is None else f"best {best:.4f}",
        file=sys.stderr, hidden=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        try:
            with process_setup.ended_by_signals():
                result = run_sweep(params, lambda best: bar.update(1, best))
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: {bar.pos} trials are kept, and the same command goes on with the rest"
            ) from None
    if as_json:
        print_json(sweep_json(result))
    else:
        _print_lines(sweep_lines(result))


@cli.command()
@_parameters(MonitorParams)
@verbose_option
@shows_progress
def monitor(config: str | None, **texts: str | None) -> int:
    """Test production data for drift.

    The command compares production data with the training baseline of the version in a stage. The exit
    code is 4 if there is drift.
    """
    params = _read(MonitorParams, config, texts)
    from pipeline.monitoring.monitor import monitor as run_monitor

    process_setup.imports_done()
    with process_setup.ended_by_signals():
        result = run_monitor(params)
    _print_lines(monitor_lines(result))
    return _DRIFT if result.analysis.has_drift else 0


_folder = click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("mlruns_example"), show_default=True,
    help="The folder of the example store.",
)  # fmt: skip


@cli.command("make-example")
@_folder
@verbose_option
def make_example(folder: Path) -> None:
    """Rebuild the example store.

    The store is built by running the commands of this project.
    """
    from pipeline.showcase import example_store

    example_store.make(folder)
    echo(f"made      {folder}")


@cli.command("show-example")
@_folder
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--console", is_flag=True, help="Open the console of registry-tools instead of the MLflow UI.")
@verbose_option
def show_example(folder: Path, port: int, console: bool) -> None:
    """Open the example store in the MLflow UI.

    The UI shows a copy of the store, until you press Ctrl-C.
    """
    from pipeline.showcase import example_store

    example_store.show(folder, port, echo, console)


@cli.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
    help="The folder for store, log and pages; a folder of an earlier demo is emptied.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=5055, show_default=True,
              help="The port of the page to watch.")  # fmt: skip
@verbose_option
def demo(folder: Path, port: int) -> None:
    """Show the whole loop on this machine.

    The demo trains and serves a model, monitors it, detects drift, retrains, promotes, and serves the new
    version.
    """
    from pipeline.showcase import demo as demonstration

    with process_setup.ended_by_signals():
        demonstration.run(folder, port, echo)


@cli.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("governed"), show_default=True,
    help="The folder for store, users, policy and key; the folder of an earlier one is emptied.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65535), default=5060, show_default=True,
    help="The port of the registry.",
)  # fmt: skip
@click.option(
    "--console-port", type=click.IntRange(1, 65535),
    help="The port of the console.  [default: the port of the registry plus 1]",
)  # fmt: skip
@verbose_option
def governed(folder: Path, port: int, console_port: int | None) -> None:
    """Run a registry whose production stage moves only on evidence.

    The command starts a server and its console, and prints their addresses, the users with their
    passwords, and the commands to try. Ctrl-C ends it.
    """
    from pipeline.showcase import governed as showcase

    with process_setup.ended_by_signals():
        showcase.run(folder, port, console_port or port + 1, echo)


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        echo(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    code = exit_codes.run(cli, argv, "pipeline", (PipelineError, RegistryToolsError))
    if code == _USAGE and "MLFLOW_RUN_ID" in os.environ:
        from pipeline.tracking import runs

        runs.delete_empty_run(os.environ["MLFLOW_RUN_ID"])
    return code
