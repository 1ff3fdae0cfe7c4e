"""Tools of others verify our verdicts, as docs/how-to/verify-a-verdict.md shows, and refuse changed ones."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.constants import ROOT
from tests.support.documents import fenced
from tests.support.npm_packages import npm_packages
from tests.support.policies import keys, make_policy, signed, statement_for

PAGE = (ROOT / "docs" / "how-to" / "verify-a-verdict.md").read_text()
ENVELOPE = json.loads(signed(statement_for(make_policy())))
PAYLOAD = base64.b64decode(ENVELOPE["payload"])
EDITED = ENVELOPE | {"payload": base64.b64encode(PAYLOAD.replace(b'"version": 3', b'"version": 4')).decode()}


def program(language: str) -> str:
    """Return the only code block of a language in the document."""
    (text,) = [block for kind, block in fenced(PAGE) if kind == language]
    return text


def run_node(folder: Path, envelope: dict[str, Any], key: str) -> subprocess.CompletedProcess[str]:
    (folder / "verdict.json").write_text(json.dumps(envelope))
    (folder / "key.pub.pem").write_text(keys()[key][1])
    (folder / "verify.mjs").write_text(program("js"))
    command = ["node", "verify.mjs", "verdict.json", "key.pub.pem"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_verifier_of_sigstore_accepts_a_verdict_and_refuses_a_changed_one(tmp_path: Path) -> None:
    modules = npm_packages(Path(__file__).parent / "sigstore", ROOT / ".edge" / "sigstore")
    (tmp_path / "node_modules").symlink_to(modules)
    done = run_node(tmp_path, ENVELOPE, "ci")
    assert done.stdout == "verified application/vnd.in-toto+json\n", done.stderr
    for envelope, key in ((EDITED, "ci"), (ENVELOPE, "stranger")):
        done = run_node(tmp_path, envelope, key)
        assert done.returncode == 1
        assert "SIGNATURE_ERROR" in done.stderr


def test_the_library_of_in_toto_reads_the_statement(tmp_path: Path) -> None:
    (tmp_path / "statement.json").write_bytes(PAYLOAD)
    command = [sys.executable, "-c", program("python")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "['iris/3/model', 'iris/3/evidence']\n", done.stderr


def test_openssl_verifies_the_signed_bytes_and_refuses_changed_ones(tmp_path: Path) -> None:
    script = "\n".join(
        line.strip().removeprefix("$ ")
        for kind, block in fenced(PAGE)
        if kind == "console" and "openssl dgst" in block
        for line in block.splitlines()
        if line.startswith("$ ")
    )
    (tmp_path / "ci.pub.pem").write_text(keys()["ci"][1])
    for envelope, printed in ((ENVELOPE, "Verified OK\n"), (EDITED, "Verification failure\n")):
        (tmp_path / "verdict.json").write_text(json.dumps(envelope))
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == printed
