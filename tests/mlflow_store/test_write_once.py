"""MLflow's one atomic primitive, as promotions, sweeps and monitors use it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_tools.errors import RegistryToolsError
from registry_tools.mlflow_store.write_once import write_once
from tests.support.registries import Place


@pytest.mark.parametrize("asynchronous", ["false", "true"])
def test_of_several_values_the_first_stands_and_each_client_learns_it(
    local: Place, monkeypatch: pytest.MonkeyPatch, asynchronous: str
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", asynchronous)
    run_id = local.client.create_run("0").info.run_id
    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(lambda value: write_once(local.client, run_id, "next", value), "abcd"))
    assert len(set(written)) == 1
    assert local.client.get_run(run_id).data.params["next"] == written[0]
    assert write_once(local.client, run_id, "next", written[0]) == written[0]
    assert write_once(local.client, run_id, "next", "other") == written[0]


def test_a_value_that_could_not_be_written_is_an_error(local: Place) -> None:
    run_id = local.client.create_run("0").info.run_id
    local.client.delete_run(run_id)
    with pytest.raises(RegistryToolsError, match="must be in the 'active' state"):
        write_once(local.client, run_id, "next", "a")
