"""The event log of a model: an MLflow experiment, with one chain of events for each stage.

A client appends an event with optimistic concurrency. It reads the last event of the chain and records
the new event as a run. Then it claims the next sequence number: it writes the id and the digest of the
new run into a parameter of the last event's run. MLflow accepts one value for a parameter, so only one
client succeeds.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from mlflow import MlflowClient
from mlflow.entities import Run

from registry_tools.errors import BrokenHistory, RegistryToolsError
from registry_tools.mlflow_store import experiments, registry, runs
from registry_tools.mlflow_store.client import Page
from registry_tools.mlflow_store.write_once import write_once
from registry_tools.promotion.event import APPLIED, BEGIN, EVENT_KIND, FAILED, Event, event_from_run, link_to

_log = logging.getLogger(__name__)

# The experiment has the name of the model with this suffix.
_SUFFIX = "-promotions"
# The tag of the experiment with the id of its root run, which comes before the first event of each stage.
_ROOT = "root"
# The parameter that links an event's run to the next event; in the root run it ends with `.STAGE`.
_NEXT = "next"
# Tags of the experiment. `head.STAGE`: an event near the end of the chain, and a random text that shows
# each change. `applying.STAGE.ID`: an event that a client is about to apply.
_HEAD, _APPLYING = "head", "applying"
_VIEW = experiments.view(
    "events", "attributes.start_time", ["params.`outcome`", "tags.`reason`", "tags.`actor`"]
)


@dataclass(frozen=True)
class EventLog:
    """The events of one model; `experiment_id` is empty if the model has no events yet."""

    client: MlflowClient
    model: str
    experiment_id: str = ""
    root: str = ""

    @classmethod
    def find(cls, client: MlflowClient, model: str) -> EventLog:
        """Return the log of a model.

        Raises
        ------
        RegistryToolsError
            If its experiment was deleted, or registry-tools did not create it.
        """
        name = f"{model}{_SUFFIX}"
        found = experiments.find(client, name)
        if found is None:
            return cls(client, model)
        if found.lifecycle_stage != "active":
            raise RegistryToolsError(
                f"the history of {model} was deleted in MLflow: restore the experiment {name!r} with: "
                f"mlflow experiments restore --experiment-id {found.experiment_id}"
            )
        if _ROOT not in found.tags:
            raise RegistryToolsError(f"experiment {name!r} is not a history of {model}: rename it in MLflow")
        return cls(client, model, found.experiment_id, found.tags[_ROOT])

    @classmethod
    def find_or_make(cls, client: MlflowClient, model: str) -> EventLog:
        """Return the log of a model, and create it if needed."""
        while not (found := cls.find(client, model)).root:
            description = (
                f"History of the stages of {model}: one run for each promotion, rollback, approval or "
                "refusal. Read it with registry-tools history, and do not edit or delete its runs."
            )
            tags = experiments.described(description) | _VIEW
            experiments.make_with_root(client, f"{model}{_SUFFIX}", tags, _ROOT)
        return found

    def with_root(self) -> EventLog:
        """Return the log, with a new root run if the old one was permanently removed from MLflow."""
        if not self.root or registry.find_run(self.client, self.root) is not None:
            return self
        return replace(self, root=experiments.add_root(self.client, self.experiment_id, _ROOT))

    def get(self, run_id: str, stage: str) -> Event:
        """Return an event of a stage by the id of its run; the root run gives the event `begin`.

        Raises
        ------
        BrokenHistory
            If the event was deleted, or changed after it was claimed.
        """
        if run_id == self.root:
            return Event(BEGIN, stage, None, None, actor="", run_id=self.root, outcome=APPLIED)
        run = self._run(run_id)
        before = registry.find_run(self.client, run.data.tags.get("previous_event") or self.root)
        links = before.data.params.values() if before is not None else ()
        if any(link.startswith(run_id) and link != link_to(run) for link in links):
            raise BrokenHistory(
                f"run {run_id} in the history of {self.model} was changed after it was recorded: "
                f"restore its tags, or run: registry-tools repair {self.model} --new-chain"
            )
        return event_from_run(run)

    def search(self, condition: str = "", limit: int | None = None) -> list[Event]:
        """Return the events that match a condition in MLflow's search language, newest first."""
        if not self.root:
            return []
        condition = f"tags.kind = '{EVENT_KIND}'{condition}"
        return _events(experiments.find_runs(self.client, self.experiment_id, condition, limit))

    def page(self, condition: str, size: int, token: str | None) -> Page[Event]:
        """Return one page of the events that match a condition, newest first."""
        if not self.root:
            return Page(())
        condition = f"tags.kind = '{EVENT_KIND}'{condition}"
        found = experiments.runs_page(self.client, self.experiment_id, condition, size, token)
        return Page(tuple(_events(found.items)), found.following)

    def stages(self) -> list[str]:
        """Return the stages that have a chain, sorted."""
        if not self.root:
            return []
        root = registry.find_run(self.client, self.root)
        keys = [*self._tags(), *(root.data.params if root is not None else ())]
        return sorted({key.partition(".")[2] for key in keys if key.startswith((f"{_HEAD}.", f"{_NEXT}."))})

    def head(self, stage: str) -> Event:
        """Return the last event in the chain of a stage.

        Raises
        ------
        BrokenHistory
            If an event of the chain was deleted, or changed after it was recorded.
        """
        if not self.root:
            return self.get(self.root, stage)
        known = self._tags().get(f"{_HEAD}.{stage}", "").partition(" ")[0] or self.root
        event = self.get(known, stage)
        while link := self._run(event.run_id).data.params.get(self._next(event)):
            event = self.get(link.partition(":")[0], stage)
        return event

    def previous(self, event: Event) -> Event:
        """Return the previous event in the chain; events that were permanently removed are skipped."""
        found = self._get_if_kept(event.previous_event, event.stage)
        return found if found is not None else self.last_known(event.stage, event.sequence)

    def last_known(self, stage: str, end: float = math.inf) -> Event:
        """Return the applied or failed event with the largest number below `end`, without its chain."""
        known = self.search(f" and tags.stage = '{stage}'")
        before = [each for each in known if each.outcome in {APPLIED, FAILED} and each.sequence < end]
        return max(before, key=lambda each: each.sequence, default=self.get(self.root, stage))

    def entry(self, event: Event) -> Event:
        """Return the newest event that has not failed, from `event` backwards in its chain."""
        while event.has_failed:
            event = self.previous(event)
        return event

    def record(self, draft: Event, head: Event, offset: int = 1) -> Event:
        """Record an event as a run with metrics and `verdict.json`; it is not in the chain yet."""
        draft = replace(draft, sequence=head.sequence + offset, previous_event=head.run_id)
        metrics = {
            f"{gate['gate']}.{name}": value for gate in draft.gates for name, value in gate["metrics"].items()
        }
        verdict = {"passed": all(gate["passed"] for gate in draft.gates), "gates": list(draft.gates)}
        file = ("verdict.json", verdict) if draft.gates else None
        return event_from_run(runs.record(self.client, self.experiment_id, draft.tags(), metrics, file))

    def claim(self, event: Event) -> bool:
        """Append a recorded event to its chain; return False if another event was appended first."""
        before = self.get(event.previous_event, event.stage)
        link = link_to(self._run(event.run_id))
        try:
            return write_once(self.client, before.run_id, self._next(before), link) == link
        except RegistryToolsError:
            self._run(before.run_id)  # if the run was deleted, which blocks the write, report that
            raise

    def is_claimed(self, event: Event) -> bool:
        """Whether an event is in the chain of its stage."""
        before = self.get(event.previous_event, event.stage)
        return self._run(before.run_id).data.params.get(self._next(before), "").startswith(event.run_id)

    def _next(self, event: Event) -> str:
        """Return the name of the parameter that links an event to the next one."""
        return f"{_NEXT}.{event.stage}" if event.action == BEGIN else _NEXT

    def close(self, event: Event, outcome: str, failure: str = "") -> str:
        """Write the outcome of an event unless it has one, and return its outcome."""
        written = write_once(self.client, event.run_id, "outcome", outcome)
        tags = {"mlflow.runName": f"{event.title}, {written}"} if written != APPLIED else {}
        tags |= {"failure": failure[:500]} if failure and written == outcome else {}
        runs.finish(self.client, event.run_id, tags)
        return written

    def mark_applying(self, event: Event) -> str:
        """Mark an event that this client is about to apply; return the key of the mark."""
        key = f"{_APPLYING}.{event.stage}.{uuid.uuid4().hex[:12]}"
        experiments.set_tag(self.client, self.experiment_id, key, event.run_id)
        return key

    def remove_mark(self, key: str) -> None:
        """Remove the mark of an event."""
        experiments.delete_tag(self.client, self.experiment_id, key)

    def set_head(self, event: Event) -> None:
        """Record an event near the end of the chain, from which `head` continues."""
        value = f"{event.run_id} {uuid.uuid4().hex[:12]}"
        experiments.set_tag(self.client, self.experiment_id, f"{_HEAD}.{event.stage}", value)

    def progress(self, stage: str) -> dict[str, str]:
        """Return the marks, and a text that changes whenever a client has applied an event."""
        head, marks = f"{_HEAD}.{stage}", f"{_APPLYING}.{stage}."
        return {key: text for key, text in self._tags().items() if key == head or key.startswith(marks)}

    def marked(self, progress: Mapping[str, str], stage: str) -> dict[str, Event | None]:
        """Return the event of each mark; None for an event that was permanently removed."""
        marks = {key: run_id for key, run_id in progress.items() if key.startswith(_APPLYING)}
        return {key: self._get_if_kept(run_id, stage) for key, run_id in marks.items()}

    def _get_if_kept(self, run_id: str, stage: str) -> Event | None:
        """Return an event; None if its run was permanently removed."""
        return self.get(run_id, stage) if registry.find_run(self.client, run_id) is not None else None

    def _tags(self) -> dict[str, str]:
        return experiments.get_tags(self.client, self.experiment_id)

    def _run(self, run_id: str) -> Run:
        run = registry.find_run(self.client, run_id)
        if run is None:
            raise BrokenHistory(
                f"run {run_id} of the history of {self.model} was permanently removed from MLflow; "
                f"run: registry-tools repair {self.model} --new-chain"
            )
        if run.info.lifecycle_stage != "active":
            raise BrokenHistory(
                f"run {run_id} of the history of {self.model} was deleted in MLflow; restore it with: "
                f"mlflow runs restore --run-id {run_id}",
                can_be_restored=True,
            )
        return run


def _events(found: Iterable[Run]) -> list[Event]:
    events = []
    for run in found:
        try:
            events.append(event_from_run(run))
        except RegistryToolsError as error:  # one unreadable event must not hide the others
            _log.warning("%s", error)
    return events
