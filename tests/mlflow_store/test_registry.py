"""Versions in a registry."""

from __future__ import annotations

from mlflow import MlflowClient

from registry_tools.mlflow_store import registry, runs


def test_a_description_that_postgresql_refuses_is_cut_with_a_note(store: str) -> None:
    client = MlflowClient(store)
    run_id = runs.start(client, "cards", "Trainings of cards.", {})
    for text, kept in (("é" * 5_000, True), ("é" * 5_001, False)):
        number = registry.register(
            client, "cards", source=f"runs:/{run_id}/model", run_id=run_id, description=text, tags={}
        )
        found = client.get_model_version("cards", str(number)).description
        assert (found == text) == kept
        assert len(found) == 5_000
    assert found.endswith("\n\nCut here: a description has at most 5,000 characters.\n")
