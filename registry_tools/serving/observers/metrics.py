"""The metrics of the server over all workers, in the format of Prometheus."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import datetime
from functools import cache, partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one process, or of all processes that share PROMETHEUS_MULTIPROC_DIR if it is set."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # Without the creation time of each counter, a second series that nothing reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if shared:
            MultiProcessCollector(self._registry)  # type: ignore[no-untyped-call]
        registry = None if shared else self._registry
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livemostrecent")
        seconds = histogram(
            "serving_request_seconds",
            "Time from a request's head to its response; `_count` is the number of requests.",
            ("route", "version", "code"),
            buckets=_SECONDS,
        )
        rows = counter("serving_rows", "Rows predicted.", ("version",))
        # Cached, because finding a series takes longer than counting.
        self._seconds, self._rows = cache(seconds.labels), cache(rows.labels)
        self._batch = histogram(
            "serving_batch_requests", "Requests in one call of the model.", buckets=_REQUESTS
        )
        self._logged = counter(
            "serving_log_rows", "Rows of the prediction log: logged, dropped, failed.", ("outcome",)
        )
        self._shadow_dropped = counter("serving_shadow_dropped_rows", "Rows that the shadow did not predict.")
        self._rollouts = counter("serving_rollouts", "Versions rolled out, counted by each worker.")
        self._failed = counter(
            "serving_failed_rollouts",
            "Rollouts that failed, by reason: verification, registry, error.",
            ("reason",),
        )
        for reason in ("verification", "registry", "error"):
            self._failed.labels(reason)
        self._version = gauge(
            "serving_model_version",
            "The served version; workers may differ for the time of one poll.",
            ("name", "stage"),
        )
        self._response_age = gauge(
            "serving_registry_response_age_seconds", "Seconds since the registry last responded."
        )
        self._drift = gauge(
            "serving_drift",
            "Last drift verdict of the monitoring for the version in the stage: 1 drift, 0 none, -1 unknown.",
            ("name",),
        )
        self._drift_at = gauge(
            "serving_drift_timestamp_seconds",
            "Time of the last drift verdict, in seconds since 1970; 0 if there is none.",
            ("name",),
        )
        self._last_response_at: float | None = None

    def request(self, route: str, version: str, code: int, seconds: float) -> None:
        """Count a finished request."""
        self._seconds(route, version, code).observe(seconds)

    def batch(self, version: str, requests: int, rows: int) -> None:
        """Count a call of the model."""
        self._batch.observe(requests)
        self._rows(version).inc(rows)

    def rolled_out(self, name: str, stage: str | None, version: int) -> None:
        """Count a version that was rolled out."""
        self._rollouts.inc()
        self._version.labels(name, stage or "").set(version)

    def rollout_failed(self, reason: str) -> None:
        """Count a failed rollout; the reason is `verification`, `registry` or `error`."""
        self._failed.labels(reason).inc()

    def report_drift(self, name: str, verdict: str, at: str) -> None:
        """Record the last drift verdict of the monitoring for the version in the stage, and its time."""
        self._drift.labels(name).set({"drift": 1, "none": 0}.get(verdict.partition(":")[0], -1))
        seconds = 0.0
        with contextlib.suppress(ValueError):  # any user may have written the tag
            seconds = datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
        self._drift_at.labels(name).set(seconds)

    def registry_responded(self, at: float) -> None:
        """Record when the registry last responded, in seconds since 1970."""
        self._last_response_at = at

    def logged(self, rows: int, outcome: str) -> None:
        """Count rows of the prediction log: `logged`, `dropped` or `failed`."""
        self._logged.labels(outcome).inc(rows)

    def shadow_dropped(self, rows: int) -> None:
        """Count rows that were not sent to the shadow."""
        self._shadow_dropped.inc(rows)

    def exposition(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        if self._last_response_at is not None:
            self._response_age.set(max(time.time() - self._last_response_at, 0.0))
        return generate_latest(self._registry)


class ShadowMetrics:
    """The metrics of the shadow process; the server reads them from shared files."""

    def __init__(self) -> None:
        counter = partial(Counter, registry=None)
        self.rows = counter(
            "serving_shadow_rows",
            "Rows that the shadow compared: agreed, disagreed, error.",
            ("version", "against", "outcome"),
        )
        self.dropped = counter("serving_shadow_dropped_rows", "Rows that the shadow did not predict.")
        self.seconds = Histogram(
            "serving_shadow_seconds",
            "Time of one prediction of the shadow.",
            ("version",),
            buckets=_SECONDS,
            registry=None,
        )

    def registry_responded(self, at: float) -> None:
        """Do nothing: only the server's own stage has metrics of rollouts."""

    def rolled_out(self, name: str, stage: str | None, version: int) -> None:
        """Do nothing, as `registry_responded`."""

    def rollout_failed(self, reason: str) -> None:
        """Do nothing; `/model` shows the failed rollouts of the shadow."""

    def report_drift(self, name: str, verdict: str, at: str) -> None:
        """Do nothing: only the version in the server's stage is monitored."""
