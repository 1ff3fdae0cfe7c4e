"""A process that loads one version and answers batches of rows until nobody asks any more.

    python -m registry_tools.batch.worker

It is asked on standard input, and answers on what was its standard output. When whoever started it
is killed, its input ends, and so does it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa

from registry_tools.batch.messages import ANSWER, ERROR, TOLD, packed, receive, send, unpacked
from registry_tools.errors import RegistryToolsError
from registry_tools.serving.lean import without

with without("pytest"):
    import sklearn
    import skops.io  # noqa: F401 - while the command looks for the version

    from registry_tools.batch.answers import Answerer
    from registry_tools.formats import TrustPolicy
    from registry_tools.serving.loading import load
    from registry_tools.serving.source import Source


def _answerer(told: bytes) -> Answerer:
    asked = json.loads(told)
    policy = TrustPolicy(
        types=tuple(asked["trust"]),
        allow_code=asked["allow_code"],
        public_key=Path(asked["public_key"]) if asked["public_key"] else None,
    )
    served = load(Source.from_json(asked["source"]), policy)
    # What is not finite is found by `columns`; a model that may learn from holes is told so there.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
    return Answerer(served, asked["proba"], asked["text"])


def main() -> int:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends it, in its own time
    pa.set_cpu_count(1)
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a model prints is no answer
    gc.freeze()
    answerer: Answerer | None = None
    while (message := receive(requests)) is not None:
        kind, content = message
        try:
            if kind == TOLD:
                answerer = _answerer(content)
                send(replies, TOLD, json.dumps(answerer.classes()).encode())
            elif answerer is not None:
                rows, _ = unpacked(content)
                answers, bad = answerer.answer(rows)
                send(replies, ANSWER, packed(answers, bad))
        except BrokenPipeError:
            return 1
        except RegistryToolsError as error:
            send(replies, ERROR, json.dumps([type(error).__name__, str(error)]).encode())
        except Exception as error:  # noqa: BLE001 - whatever a model does is told to the command
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            send(replies, ERROR, json.dumps(["RegistryToolsError", said]).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
