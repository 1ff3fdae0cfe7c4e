"""What `make docs` adds to the pages: documents of the root folder, and parts that are read from the code."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

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

    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(pointed, part) for part in parts[::2]]
    return "".join(parts)
