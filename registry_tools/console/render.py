"""Fill the templates of the pages with values, and escape each value."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from registry_tools.terminal import printable_lines

_FOLDER = Path(__file__).parent / "templates"
_environment = Environment(
    loader=FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# A name in an address may hold any character, also a slash.
_environment.filters["segment"] = lambda text: quote(str(text), safe="")
_environment.filters["short"] = lambda text: str(text)[:12] if text else "-"
_environment.filters["moment"] = lambda text: f"{text[:10]} {text[11:16]} UTC" if text else "-"


def page(template: str, **values: Any) -> str:
    """Return a page; control characters and marks of writing direction in values are escaped too."""
    return printable_lines(_environment.get_template(template).render(**values))


def static_file(name: str) -> str:
    """Return a file that the pages refer to."""
    return (_FOLDER / name).read_text(encoding="utf-8")
