"""The result of one gate, and the verdict of all gates of one promotion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec

from registry_tools.errors import InputError, VerificationError

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")


@dataclass(frozen=True)
class GateResult:
    """The result of one gate, with a message of one line and the measured metrics."""

    gate: str
    passed: bool
    message: str
    metrics: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def run_gate(gate: str, run: Callable[P, GateResult], *args: P.args, **kwargs: P.kwargs) -> GateResult:
    """Return the result of a function that runs a gate; an error that it raises is a refusal."""
    try:
        return run(*args, **kwargs)
    except (InputError, VerificationError) as error:
        return GateResult(gate, False, str(error))


@dataclass(frozen=True)
class Verdict:
    """The results of all gates of one promotion."""

    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def refusals(self) -> tuple[GateResult, ...]:
        """The results of the gates that refused."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {"passed": self.passed, "gates": [gate.as_dict() for gate in self.gates]}

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame with a line for each gate: `gate`, `passed`, `message`, `metrics`."""
        import pandas as pd

        return pd.DataFrame([gate.as_dict() for gate in self.gates], columns=list(GateResult.__annotations__))
