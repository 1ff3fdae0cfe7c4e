"""The page at `/docs`: what it shows it reads from `/openapi.json`."""

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Serving</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#222}
small{color:#666;font-weight:normal}table{border-collapse:collapse}
td{padding:.2rem 1.5rem .2rem 0;border-bottom:1px solid #ddd}
form{margin:1rem 0;padding:.2rem 1rem 1rem;border:1px solid #ccc;border-radius:6px}
textarea{width:100%;box-sizing:border-box;font:14px/1.4 ui-monospace,monospace}
button{margin-top:.4rem;padding:.3rem 1rem}pre{background:#f4f4f4;padding:.6rem;overflow:auto}
</style>
<h1 id="title">Serving</h1>
<p>Every response names its version in <code>X-Model-Version</code>.
<a href="/openapi.json">openapi.json</a> has this page for tools.</p>
<p><label>Key, if one is needed <input id="key" type="password"></label>
<span id="trouble"></span></p>
<h2>What it takes</h2>
<table id="columns"></table>
<p>Columns are matched by name in any order; a list of <code>features</code> is in this one.</p>
<h2>Predict</h2>
<div id="predict"></div>
<h2>State</h2>
<table id="state"></table>
<script>
const key = document.getElementById("key");

function put(parent, tag, text, options) {
  const made = Object.assign(document.createElement(tag), options);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function headers(more) {
  return key.value ? {...more, "Authorization": "Bearer " + key.value} : {...more};
}

function addForm(path, operation) {
  const form = put(document.getElementById("predict"), "form");
  put(form, "h3", "POST " + path);
  put(form, "p", operation.summary);
  const body = operation.requestBody.content["application/json"];
  const area = put(form, "textarea", undefined, {rows: 4, value: JSON.stringify(body.example)});
  put(form, "button", "Send");
  const output = put(form, "pre", "", {hidden: true});
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const kind = {"Content-Type": "application/json"};
    const reply = await fetch(path, {method: "POST", headers: headers(kind), body: area.value});
    const version = reply.headers.get("x-model-version");
    output.textContent =
      reply.status + (version ? " from version " + version : "") + "\\n" + await reply.text();
    output.hidden = false;
  });
}

function addLink(path, operation) {
  const row = put(document.getElementById("state"), "tr");
  put(put(row, "td"), "a", path, {href: path});
  put(row, "td", operation.summary);
}

async function show() {
  const reply = await fetch("/openapi.json", {headers: headers()});
  document.getElementById("trouble").textContent =
    reply.ok ? "" : reply.status === 401 ? "is needed to go on" : await reply.text();
  if (!reply.ok) return;
  for (const id of ["columns", "predict", "state"]) document.getElementById(id).replaceChildren();
  const {info, paths, components} = await reply.json();
  const title = document.getElementById("title");
  document.title = title.textContent = info.title + " ";
  put(title, "small", "version " + info.version);
  for (const column of components.schemas.Values.prefixItems || []) {
    const row = put(document.getElementById("columns"), "tr");
    put(row, "td", column.title);
    put(row, "td", column.type);
  }
  for (const [path, {post, get}] of Object.entries(paths))
    post ? addForm(path, post) : addLink(path, get);
}

key.addEventListener("change", show);
show();
</script>
</html>
"""
