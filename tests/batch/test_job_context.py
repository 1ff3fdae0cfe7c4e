"""The run of a scoring job: names of its metrics, and its end."""

from __future__ import annotations

from collections import Counter

import pytest

from registry_tools.batch.job import RowCounts, ScoringRequest
from registry_tools.batch.job_context import ScoringRun
from registry_tools.errors import RegistryToolsError
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.mlflow_store import runs
from registry_tools.refs import parse_ref
from tests.support.registries import Place


def test_each_class_name_becomes_the_name_of_a_metric_that_mlflow_accepts(local: Place) -> None:
    request = ScoringRequest(parse_ref("classes/1"), "in.csv", "out.csv")
    record = ScoringRun(request, ModelArtifact("", "classes", 1, None, None, None), local.uri)
    assert record.run_id is not None
    names = ["yes//no", "yes__no", "a/", "../b", "ok-1.5 ä", "x" * 400]
    summary = record.finish(RowCounts(6, 2, Counter(names)), 4.0)
    assert (summary.rows, summary.rejected, summary.rows_per_second) == (6, 2, 2.0)
    assert summary.counts == dict.fromkeys(names, 1)
    run = local.client.get_run(record.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {
        "rows": 6,
        "rejected": 2,
        "seconds": 4,
        "rows_per_second": 2,
        "count_yes__no": 2,
        "count_a_": 1,
        "count_.._b": 1,
        "count_ok-1.5 ä": 1,
        "count_" + "x" * 244: 1,
    }


def test_a_run_ends_if_its_metrics_are_refused(local: Place) -> None:
    run_id = runs.start(local.client, "classes-scoring", "", {})
    with pytest.raises(RegistryToolsError, match="a//b"):
        runs.end(local.client, run_id, "FINISHED", {"a//b": 1.0}, {})
    assert local.client.get_run(run_id).info.status == "FINISHED"
