"""The processes of a scoring job: their settings, their errors and their end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import threadpoolctl

from registry_tools.batch.worker_pool import WorkerPool
from registry_tools.errors import InputError, RegistryToolsError
from tests.support.servers import eventually

pytestmark = pytest.mark.slow  # each process imports all that it needs to predict


@contextlib.contextmanager
def one_worker() -> Iterator[WorkerPool]:
    pool = WorkerPool(1)
    try:
        yield pool
    finally:
        pool.close()


def settings() -> dict[str, object]:
    return {
        "threads": os.environ["OMP_NUM_THREADS"],
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)],
        "loaded": {library["num_threads"] for library in threadpoolctl.threadpool_info()},
        "stdout": os.path.sameopenfile(1, 2),
    }


def refuse() -> None:
    raise InputError("row 3")


def test_processes_have_one_thread_and_ignore_ctrl_c_and_the_command_keeps_its_settings() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    wanted = {"threads": "1", "signals": [signal.SIG_IGN] * 2, "loaded": {1}, "stdout": True}
    with one_worker() as pool:
        assert pool.run(settings) == wanted
        with pytest.raises(InputError, match="row 3"):
            pool.run(refuse)
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert not multiprocessing.active_children()


def test_a_process_that_ends_by_itself_is_an_error_that_names_the_version() -> None:
    with one_worker() as pool:
        pool.version = "iris version 3"
        with pytest.raises(RegistryToolsError, match=r"itself \(exit code 3\) with iris version 3: "):
            pool.run(os._exit, 3)


def test_a_process_that_ended_before_the_next_slice_is_named_as_well() -> None:
    with one_worker() as pool:
        pool.run(os.getpid)
        (process,) = pool._processes.values()
        process.kill()
        process.join()
        eventually(lambda: pool._executor._broken)
        with pytest.raises(RegistryToolsError, match=r"itself \(SIGKILL\) with the version: "):
            pool.run(os.getpid)


def test_pools_that_start_in_two_threads_have_their_own_processes() -> None:
    barrier = threading.Barrier(2)

    def start_pool(workers: int) -> WorkerPool:
        barrier.wait()
        return WorkerPool(workers)

    with ThreadPoolExecutor(2) as threads:
        pools = list(threads.map(start_pool, [2, 2]))
    pids = [{process.pid for process in pool._processes.values()} for pool in pools]
    for pool in pools:
        pool.close()
    assert [len(each) for each in pids] == [2, 2]
    assert not pids[0] & pids[1]
