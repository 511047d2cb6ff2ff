"""Who may stop a worker process: its parent, and nobody else short of SIGKILL."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from torture.kill import stopped
from torture.tiny import make_tiny
from wsss.runtime.pool import WorkerPool


def own_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def from_outside(number: signal.Signals, pid: int) -> None:
    """As a terminal or ``timeout`` does: not from the parent."""
    subprocess.run(["kill", f"-{number.value}", str(pid)], check=True)


def test_workers_leave_signals_of_others_to_their_parent() -> None:
    with WorkerPool(1) as pool:
        begun = pool.submit(own_pid, 0.5)  # still starting: its first instructions are Python's own
        for worker in list(pool._processes):
            from_outside(signal.SIGINT, worker)
            from_outside(signal.SIGTERM, worker)
        worker = begun.result(60)
        for number in (signal.SIGINT, signal.SIGTERM):
            from_outside(number, worker)
        assert pool.submit(own_pid, 0.2).result(60) == worker


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who sent a signal")
def test_a_pool_with_a_dead_worker_ends_the_others() -> None:
    with WorkerPool(2) as pool:
        tasks = [pool.submit(own_pid, 30) for _ in range(2)]
        first, second = list(pool._processes.values())
        while not (tasks[0].running() and tasks[1].running()):
            time.sleep(0.01)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            tasks[1].result(300)
        # Not join(): the pool's own thread joins it too, and who loses that race is told that it still runs.
        ended = wait([second.sentinel], 300)
        second.kill()  # leaving the pool would wait for it for ever
        assert ended


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_stops_at_a_safe_point(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C at a terminal; the worker that loads images is starting."""
    assert stopped(make_tiny(tmp_path / "data"), tmp_path, number, 0.3, everybody=True, patience=60) == []
