"""The experiments that this project creates, as MLflow's UI shows them."""

from __future__ import annotations

from mlflow import MlflowClient

from pipeline.monitoring.run_log import MonitoringRun
from pipeline.params.definitions import TrainParams
from pipeline.training.train import train
from registry_tools.batch.job import ScoringRequest
from registry_tools.batch.job_context import ScoringRun
from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.mlflow_store import runs
from registry_tools.refs import parse_ref


def test_every_experiment_has_a_description(store: str) -> None:
    client = MlflowClient(store)
    trained = train(TrainParams(plots=False))
    MonitoringRun(client, "iris", {}).finish({})
    request = ScoringRequest(parse_ref("iris/1"), "in.csv", "out.csv")
    ScoringRun(request, ModelArtifact("", "iris", 1, None, None, None), store)
    runs.copy_run(client, trained.run_id, client, "copied", {})
    descriptions = {
        experiment.name: experiment.tags.get("mlflow.note.content", "")
        for experiment in client.search_experiments(filter_string="name != 'Default'")
    }
    names = {"iris", "iris-promotions", "iris-monitoring", "iris-scoring", "copied"}
    assert descriptions.keys() == names
    assert all(descriptions.values()), descriptions
