"""What there is to ask, made from the signature of the version that answers: OpenAPI, and a page.

The page needs nothing from anywhere else, so that it opens in a network without a way out.
"""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

import orjson

from registry_tools.serving import inference
from registry_tools.serving.http import JSON, Reply, Request
from registry_tools.serving.served import METHODS, Served
from registry_tools.signature import Column

if TYPE_CHECKING:
    from registry_tools.serving.app import App

_TYPES: dict[str, dict[str, Any]] = {
    "double": {"type": "number"},
    "float": {"type": "number"},
    "long": {"type": "integer"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
}
_HTML = (b"content-type", b"text/html; charset=utf-8")
# Nothing but what the page itself holds may run or be asked.
_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; connect-src 'self'; "
    b"style-src 'unsafe-inline'; script-src 'unsafe-inline'",
)


async def openapi(app: App, request: Request) -> Reply:
    """Return the description that tools read."""
    served = app.begin(request)
    return Reply(orjson.dumps(described(served), option=orjson.OPT_INDENT_2), headers=[JSON])


async def page(app: App, request: Request) -> Reply:
    """Return the page that people read."""
    served = app.begin(request)
    return Reply(_page(served).encode(), headers=[_HTML, _POLICY])


def described(served: Served) -> dict[str, Any]:
    """Return the interface to a version as OpenAPI 3.1."""
    example = _example(served)
    split = {"dataframe_split": example}
    predict = {
        "/predict": {
            "post": _operation(
                "Answer one row",
                {"features": _features(served.info.signature)},
                {"features": example["data"][0]},
                {"prediction": {}, "prediction_index": {"type": "integer"}},
            )
        },
        "/invocations": {
            "post": _operation(
                "Answer rows as MLflow's own server does; text/csv and Parquet as well",
                {
                    "dataframe_split": _split(served.info.signature),
                    "params": {
                        "type": "object",
                        "properties": {"method": {"enum": list(METHODS)}},
                    },
                },
                split,
                {"predictions": {"type": "array"}},
            )
        },
        f"/v2/models/{served.source.name}/infer": {
            "post": _operation(
                "Answer rows as tensors: the Open Inference Protocol, version 2",
                {"inputs": {"type": "array"}, "outputs": {"type": "array"}},
                _tensors(served, example),
                {"outputs": {"type": "array"}},
            )
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": served.source.name,
            "version": served.label,
            "description": "The description is of the version that answers now.",
        },
        "paths": predict | {path: {"get": _told(summary)} for path, summary in _PAGES.items()},
    }


_PAGES = {
    "/health": "Is the process alive?",
    "/ready": "Should requests be sent here?",
    "/model": "The version that answers, the last look at the registry, the last error",
    "/metrics": "Prometheus",
    "/v2/health/ready": "Is it ready, in the Open Inference Protocol?",
}


def _example(served: Served) -> dict[str, Any]:
    """Return the rows that the version was tried on when it was loaded, or the columns at least."""
    columns = served.info.signature or ()
    given = (served.example or {}).get("dataframe_split")
    if isinstance(given, dict) and given.get("data"):
        return {"columns": given.get("columns"), "data": given["data"][:2]}
    return {"columns": [c.name for c in columns], "data": [[None] * len(columns)]}


def _tensors(served: Served, example: dict[str, Any]) -> dict[str, Any]:
    inputs, outputs = inference.described(served)
    rows = example["data"]
    entries = []
    for place, tensor in enumerate(inputs):
        data = [row[place] for row in rows if place < len(row)]
        shape = [len(rows), 1]
        entry = {"name": tensor.name, "shape": shape, "datatype": tensor.datatype, "data": data}
        entries.append(entry)
    return {"inputs": entries, "outputs": [{"name": tensor.name} for tensor in outputs]}


def _features(columns: tuple[Column, ...] | None) -> dict[str, Any]:
    if columns is None:
        return {"type": "array"}
    items = [{"title": c.name, **_TYPES.get(c.type, {"type": "string"})} for c in columns]
    return {
        "type": "array",
        "prefixItems": items,
        "minItems": len(items),
        "maxItems": len(items),
        "description": ", ".join(f"{c.name} ({c.type})" for c in columns),
    }


def _split(columns: tuple[Column, ...] | None) -> dict[str, Any]:
    names = [column.name for column in columns or ()]
    return {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"enum": names} if names else {}},
            "data": {"type": "array", "items": _features(columns)},
        },
    }


def _operation(
    summary: str, properties: dict[str, Any], example: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    body = {"schema": {"type": "object", "properties": properties}, "example": example}
    answered = {"schema": {"type": "object", "properties": answer}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": answered}},
            "400": {"description": "The request cannot be answered; says why"},
            "503": {"description": "Too many requests wait, or no model is loaded yet"},
        },
    }


def _told(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}


def _page(served: Served) -> str:
    paths = described(served)["paths"]
    rows = "".join(
        f"<tr><td>{html.escape(c.name)}<td>{html.escape(c.type)}"
        f"<td>{'needed' if c.required else 'may be missing'}"
        for c in served.info.signature or ()
    )
    asked = "".join(
        _asking(path, operations["post"])
        for path, operations in paths.items()
        if "post" in operations
    )
    told = "".join(
        f"<tr><td><a href='{path}'>{path}</a><td>{html.escape(operations['get']['summary'])}"
        for path, operations in paths.items()
        if "get" in operations
    )
    source = served.source
    stage = f" · {html.escape(source.stage)}" if source.stage else ""
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{html.escape(source.name)} version {source.version}</title><style>{_STYLE}</style>
<h1>{html.escape(source.name)} <small>version {source.version}{stage}</small></h1>
<p>Every answer names its version in <code>X-Model-Version</code>.
<a href="/openapi.json">openapi.json</a> has this page for tools.</p>
<h2>What it takes</h2><table>{rows}</table>
<p>Columns are matched by name in any order; <code>features</code> are in this one.</p>
<h2>Ask</h2><p><label>Key, if one is needed <input id="key" type="password"></label></p>{asked}
<h2>Look</h2><table>{told}</table><script>{_SCRIPT}</script></html>"""


def _asking(path: str, operation: dict[str, Any]) -> str:
    example = operation["requestBody"]["content"]["application/json"]["example"]
    text = json.dumps(example, ensure_ascii=False)
    return (
        f"<form data-path='{html.escape(path, quote=True)}'><h3>POST {html.escape(path)}</h3>"
        f"<p>{html.escape(operation['summary'])}</p>"
        f"<textarea rows='4' aria-label='body'>{html.escape(text)}</textarea>"
        "<button>Send</button><pre hidden></pre></form>"
    )


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#222}
small{color:#666;font-weight:normal}table{border-collapse:collapse}
td{padding:.2rem 1.5rem .2rem 0;border-bottom:1px solid #ddd}
form{margin:1rem 0;padding:.2rem 1rem 1rem;border:1px solid #ccc;border-radius:6px}
textarea{width:100%;box-sizing:border-box;font:14px/1.4 ui-monospace,monospace}
button{margin-top:.4rem;padding:.3rem 1rem}pre{background:#f4f4f4;padding:.6rem;overflow:auto}
"""
_SCRIPT = """
for (const form of document.forms) form.addEventListener("submit", async event => {
  event.preventDefault();
  const key = document.getElementById("key").value, shown = form.querySelector("pre");
  const headers = {"Content-Type": "application/json"};
  if (key) headers["Authorization"] = "Bearer " + key;
  try {
    const body = form.querySelector("textarea").value;
    const reply = await fetch(form.dataset.path, {method: "POST", headers, body});
    const version = reply.headers.get("x-model-version");
    shown.textContent = reply.status + (version ? " from version " + version : "") + "\\n"
      + await reply.text();
  } catch (error) { shown.textContent = error; }
  shown.hidden = false;
});
"""

ROUTES = {"/docs": {"GET": page}, "/openapi.json": {"GET": openapi}}
PROBES: set[str] = set()
