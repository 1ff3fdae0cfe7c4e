"""Move a stage in a process that ends after a given number of statements, as a killed server does.

`python -m tests.support.gated_moves STORE MODEL VERSION` moves production of a model again and again, each
time in a new process that kills itself one statement later than the one before, until one ends by itself.
It writes the number of killed processes.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import sqlalchemy as sa

from registry_tools.gated_store.store import GatedStore


def move(store: str, model: str, version: int, statements: int) -> None:
    """Move the stage, and kill this process after a number of statements of the move."""
    built = GatedStore(store)
    count = 0

    def kill(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == statements:
            os.kill(os.getpid(), signal.SIGKILL)

    for event in ("after_cursor_execute", "commit"):
        sa.event.listen(built.engine, event, kill)
    built.set_registered_model_alias(model, "production", str(version))


def main(store: str, model: str, version: str) -> None:
    """Move the stage in one process after another, until one is not killed."""
    statements = 1
    while True:
        process = os.fork()
        if process == 0:
            move(store, model, int(version), statements)
            os._exit(0)
        status = os.waitpid(process, 0)[1]
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        sys.stdout.write(f"{statements}\n")
        sys.stdout.flush()
        sys.stdin.readline()  # the test looks at the database before the next process
        statements += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
