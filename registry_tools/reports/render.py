"""Fill HTML templates with values, and escape each value."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from registry_tools.terminal import printable_lines


def render(template: str, made: datetime, folder: Path | None = None, **values: Any) -> str:
    """Return the page for a template from this package or from `folder`; `made` is a time in UTC."""
    environment = Environment(
        loader=FileSystemLoader([*([folder] if folder else []), Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(made=f"{made:%Y-%m-%d %H:%M} UTC", **values)
    return printable_lines(page)


def data_uri(png: bytes) -> str:
    """Return a picture as a data URI, so that the page needs no second file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
