"""A process that serves: the service, and the versions that it has loaded."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry_tools.inference.model_artifact import ModelArtifact
from registry_tools.inference.model_loader import load
from registry_tools.inference.predictor import Predictor, skip_sklearn_validation
from registry_tools.serving.observers.metrics import Metrics
from registry_tools.serving.service import InferenceService
from registry_tools.serving.settings import Settings
from registry_tools.serving.threads import run_in_thread

if TYPE_CHECKING:
    from registry_tools.serving.observers.prediction_log import PredictionLog


class Worker:
    """The target of rollouts in this process."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        skip_sklearn_validation()
        self.service = InferenceService(settings, metrics)
        self._policy = settings.policy
        self._began = time.time()
        self._loaded: dict[str, Predictor] = {}
        self._log: PredictionLog | None = None
        if settings.log_predictions:
            from registry_tools.serving.observers.prediction_log import PredictionLog

            folder = Path(settings.log_predictions)
            self._log = PredictionLog(folder, settings.sample, settings.log_every, metrics.logged)
            self.service.observers.append(self._log)
            self.service.prediction_log_status = lambda: self._log.state

    def close(self) -> None:
        """Write what the prediction log holds."""
        if self._log is not None:
            self._log.close()

    async def prepare(self, artifact: ModelArtifact) -> None:
        """Load and check a version beside the served one."""
        predictor = await run_in_thread(lambda: load(artifact, self._policy), "load")
        self._loaded[artifact.folder] = predictor

    async def swap(self, artifact: ModelArtifact) -> None:
        """Serve the prepared version; requests in flight end on the one they began with."""
        self.service.data_plane.current = self._loaded.pop(artifact.folder)

    async def drop(self, artifact: ModelArtifact) -> None:
        """Forget a prepared version."""
        self._loaded.pop(artifact.folder, None)

    def report_status(self, state: dict[str, Any]) -> None:
        """Keep the state of the rollout for `/model` and the metrics."""
        self.service.rollout_status = state
        predictor = self.service.data_plane.current
        if predictor is not None and predictor.artifact.stage is not None:
            last = state["last_registry_response"]
            # Before the first response, its age is that of this process.
            at = datetime.fromisoformat(last).timestamp() if last else self._began
            self.service.metrics.registry_responded(at)
