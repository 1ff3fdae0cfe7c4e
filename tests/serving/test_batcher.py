"""Requests that wait together: one that is cancelled takes no others with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from registry_tools.serving.engine.batcher import Batcher
from tests.support.predictors import save_and_load

TABLE = pd.DataFrame({"a": np.arange(9.0), "b": np.arange(9.0)})


def test_when_all_requests_of_one_version_are_cancelled_those_of_another_are_predicted(
    tmp_path: Path,
) -> None:
    model = LinearRegression().fit(TABLE, TABLE["a"])
    first, second = (save_and_load(tmp_path / name, model, input_example=TABLE[:2]) for name in "ab")

    async def ask() -> list[float]:
        batcher = Batcher(lambda *counts: None, lambda: 2, [])
        batcher.predict(first, "predict", TABLE[:1].to_numpy()).cancel()
        return await asyncio.wait_for(batcher.predict(second, "predict", TABLE[:2].to_numpy()), 30)

    np.testing.assert_allclose(asyncio.run(ask()), [0, 1], atol=1e-9)
