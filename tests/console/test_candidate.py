"""A version as a candidate, read from a store."""

from __future__ import annotations

import shutil
from pathlib import Path

from registry_tools.console.candidate import read_candidate
from registry_tools.mlflow_store.client import connect
from registry_tools.policy import tag_names
from registry_tools.policy.records import Request, verdict_digest
from registry_tools.promotion.event import EXTERNAL, Event
from registry_tools.promotion.event_log import EventLog
from tests.support.policies import MODEL, MODEL_DIGEST, STAGE, make_policy


def test_the_request_of_a_version_from_before_the_registry_was_gated_is_shown(
    empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path)
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    client.create_registered_model(MODEL)
    log = EventLog.find_or_make(client, MODEL)
    assert log.claim(log.record(Event(EXTERNAL, STAGE, 1, None, "ana"), log.head(STAGE)))
    request = Request("better", MODEL_DIGEST, 0, verdict_digest("signed"), by="trainer", at="2026-11-28")
    tags = {
        tag_names.DIGEST_TAG: MODEL_DIGEST,
        tag_names.verdict_tag(STAGE): "signed",
        tag_names.request_tag(STAGE): request.to_text(),
    }
    client.create_model_version(MODEL, tmp_path.as_uri(), tags=tags)
    # The gated registry counts from 0, and writes down who registers a version.
    client.create_model_version(MODEL, tmp_path.as_uri(), tags={tag_names.REGISTERED_BY: "trainer"})
    assert read_candidate(client, make_policy(), MODEL, 1, STAGE).request == request
