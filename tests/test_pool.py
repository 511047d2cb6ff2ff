"""Work on several items at once: order, a bounded number under way, who may stop a worker, open files."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from multiprocessing.connection import wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.runtime import interrupt
from wsss.runtime.pool import in_order, look_ahead, worker_processes


@given(items=st.lists(st.integers()), threads=st.integers(1, 4))
def test_as_map(items: list[int], threads: int) -> None:
    assert list(in_order(lambda value: value * 2, items, threads=threads)) == [value * 2 for value in items]


def test_order_holds_when_the_first_is_the_slowest() -> None:
    def work(value: int) -> int:
        time.sleep(0.05 if value == 0 else 0)
        return value

    assert list(in_order(work, range(8), threads=4)) == list(range(8))


def test_items_are_taken_as_results_are() -> None:
    taken = []

    def items() -> Iterator[int]:
        for value in range(100):
            taken.append(value)
            yield value

    results = in_order(lambda value: value, items(), threads=3)
    for _ in range(5):
        next(results)
    assert len(taken) <= 5 + 6
    results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 5 + 6


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_at_its_turn(threads: int) -> None:
    def work(value: int) -> int:
        if value == 4:
            raise ValueError("four")
        return value

    results = in_order(work, range(50), threads=threads)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="four"):
        next(results)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_request_to_stop_is_heeded_between_results(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results = in_order(lambda value: value, range(50), threads=threads)
    assert next(results) == 0
    monkeypatch.setattr(interrupt, "_requested", True)
    with pytest.raises(interrupt.Interrupted):
        next(results)


def own_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def from_outside(number: signal.Signals, pid: int) -> None:
    """As a terminal or ``timeout`` does: not from the parent."""
    subprocess.run(["kill", f"-{number.value}", str(pid)], check=True)


@pytest.mark.slow
def test_workers_leave_signals_of_others_to_their_parent() -> None:
    before = active_children()
    with worker_processes(1, own_pid) as submit:
        begun = submit(0.5)  # still starting: its first instructions are Python's own
        (worker,) = [each.pid for each in active_children() if each not in before]
        assert worker is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            from_outside(number, worker)
        assert begun.result(60) == worker
        for number in (signal.SIGINT, signal.SIGTERM):
            from_outside(number, worker)
        assert list(look_ahead(submit, [0.2, 0.0], depth=1)) == [worker, worker]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who sent a signal")
def test_a_pool_with_a_dead_worker_ends_the_others() -> None:
    before = active_children()
    with worker_processes(2, own_pid) as submit:
        tasks = [submit(30) for _ in range(2)]
        first, second = [each for each in active_children() if each not in before]
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


def test_more_open_files_are_allowed_as_workers_need_them() -> None:
    program = (
        "import resource, sys; from wsss.runtime.pool import require_descriptors\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300)); require_descriptors(20)\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (264, 300); require_descriptors(30)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "UserError: too few open files are allowed here (300; 30 worker processes" in done.stderr
