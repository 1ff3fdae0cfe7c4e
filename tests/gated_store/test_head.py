"""The number of moves of a stage, as a client reads it from a gated registry."""

from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.promotion.event import EXTERNAL, Event
from registry_tools.promotion.event_log import EventLog
from registry_tools.promotion.stage_evidence import stage_head
from tests.support.gated import Gated
from tests.support.tracking_servers import signed_in


def test_a_client_reads_the_count_of_the_registry_and_not_of_the_history(gated: Gated) -> None:
    name = gated.model("one", "two")
    with signed_in("trainer"):
        client = MlflowClient(gated.uri)
        # A history of before the registry was gated.
        log = EventLog.find_or_make(client, name)
        assert log.claim(log.record(Event(EXTERNAL, "production", 1, None, "ana"), log.head("production")))
        assert log.head("production").sequence == 1
        assert stage_head(client, name, "production") == 0
        gated.promote(name, 1)
        gated.promote(name, 2)
        assert stage_head(client, name, "production") == 2
        assert stage_head(client, name, "staging") == 0
