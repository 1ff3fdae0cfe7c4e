"""What `make docs` adds to the pages: documents of the root folder, and parts that are read from the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

import click
import yaml
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Documents at the root of the repository, and their names in the site.
FROM_ROOT = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """Put every decision into the navigation."""
    explanation = next(entry for entry in config.nav if "Explanation" in entry)["Explanation"]
    decisions = next(entry for entry in explanation if "Decisions" in entry)
    folder = ROOT / "docs" / decisions["Decisions"]
    decisions["Decisions"] = [f"decisions/{path.name}" for path in sorted(folder.glob("*.md"))]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the documents of the root folder to the pages."""
    for source, name in FROM_ROOT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source == "README.md":
            text = text.replace("](docs/pictures/", "](pictures/")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Point the links of a page at pages of the site; a link to source code becomes its text."""
    sources = {name: source for source, name in FROM_ROOT.items()}
    uri = page.file.src_uri
    here = PurePosixPath(sources.get(uri) or f"docs/{uri}")

    def pointed(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = normpath(str(here.parent / target))
        if (name := FROM_ROOT.get(path) or path.removeprefix("docs/")) and files.get_file_from_path(name):
            depth = uri.count("/")
            return f"[{text}]({'../' * depth}{name}{anchor})"
        if (ROOT / path).exists():
            return text
        return match[0]  # mkdocs reports it

    for name, generated in {"commands": commands, "parameters": parameters}.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, generated())
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(pointed, part) for part in parts[::2]]
    return "".join(parts)


def _cell(text: object) -> str:
    # Click adds "[1<=x<=65535]", which mkdocs-autorefs would read as a link to a heading.
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _option(parameter: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    record = parameter.get_help_record(context)  # None for an argument or a hidden option
    return record and (f"`{record[0]}`", _cell(record[1]))


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    options = [row for parameter in command.get_params(context) if (row := _option(parameter, context))]
    usage = command.get_usage(context).removeprefix("Usage: ")
    about = inspect.cleandoc(command.help or "").replace("\b\n", "").replace("<", "&lt;")
    table = _table(("option", "meaning"), options) if options else ""
    return f"### `{name}`\n\n```text\n{usage}\n```\n\n{about}\n\n{table}"


def commands() -> str:
    """Describe every command of both programs, with its options."""
    from pipeline.cli import cli as pipeline
    from registry_tools.cli.main import cli as registry_tools

    programs = {"registry-tools": registry_tools, "python -m pipeline": pipeline}
    return "\n".join(_command(name, each) for program in programs.items() for name, each in _leaves(*program))


def _leaves(name: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Yield each command of a group with its full name, and the commands of the groups in it."""
    for word, command in group.commands.items():
        yield f"{name} {word}", command
        if isinstance(command, click.Group):
            yield from _leaves(f"{name} {word}", command)


def _meanings(entry: str) -> dict[str, str]:
    """Return the meaning of each parameter of an entry point, from where it is checked."""
    from pipeline.params.definitions import MonitorParams, SweepParams, TrainParams
    from pipeline.params.types import bounds_of
    from registry_tools.cli.main import cli

    if params := {"main": TrainParams, "sweep": SweepParams, "monitor": MonitorParams}.get(entry):
        texts = {name: (field.description, bounds_of(field)) for name, field in params.model_fields.items()}
        return {name: f"{told} {bounds[:1].upper()}{bounds[1:]}." for name, (told, bounds) in texts.items()}
    if entry == "configured":
        return {"config": "A file of the parameters of `main`, in YAML."}
    return {
        name.lstrip("-").replace("-", "_"): getattr(parameter, "help", None) or "The version."
        for parameter in cli.commands[entry].params
        for name in parameter.opts
    }


def parameters() -> str:
    """Describe the parameters of every entry point of MLproject."""
    text = []
    for entry, content in yaml.safe_load((ROOT / "MLproject").read_text("utf-8"))["entry_points"].items():
        meanings = _meanings(entry)
        rows = []
        for name, declared in content["parameters"].items():
            default = declared["default"] if isinstance(declared, dict) else ""
            rows.append((f"`{name}`", default and f"`{default}`", _cell(meanings[name])))
        text.append(f"## `{entry}`\n\n{_table(('parameter', 'default', 'meaning'), rows)}")
    return "\n".join(text)
