"""A version's verified files on this machine, which a worker loads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

# Number, run and digest: a number alone may mean another version after a deletion.
Identity = tuple[int, "str | None", "str | None"]


@dataclass(frozen=True)
class ModelArtifact:
    """One version, as it lies on this machine.

    `folder` has `model`, and `recorded_predictions.json` if there are recorded predictions.
    """

    folder: str
    name: str
    version: int
    stage: str | None  # the stage it is served for; None if by number
    run_id: str | None
    digest: str | None
    from_cache: bool = False

    @property
    def model(self) -> Path:
        """The folder with the model's files."""
        return Path(self.folder, "model")

    @property
    def identity(self) -> Identity:
        """Distinguishes it from another version of the same number."""
        return self.version, self.run_id, self.digest

    @property
    def recorded_predictions(self) -> Path:
        """The file of recorded predictions; it may be missing."""
        return Path(self.folder, "recorded_predictions.json")

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"

    def to_json(self) -> str:
        """Return it as text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelArtifact:
        """Return a version from the text of `to_json`."""
        return cls(**json.loads(text))
