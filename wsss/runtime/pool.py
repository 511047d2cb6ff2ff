"""Worker processes, without importing torch: how many to use, and who may stop them.

Ctrl-C reaches every process of a terminal's command, and SIGTERM often does (``timeout``, systemd, Slurm). Workers
leave both to their parent, from their first instruction on: it stops at a safe point, for which it needs them.

Work on several items at once, results in the items' order: reading and counting overlap with the accelerator.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context, resource_tracker
from typing import Any, Generic, ParamSpec, TypeVar

from wsss.config import RunConfig
from wsss.errors import UserError
from wsss.memory import keep_freed_memory
from wsss.runtime.distributed import local_count

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_DESCRIPTORS = 16
"""Open files that a command with workers needs for itself: data, artifacts, starting a process."""
_OF_POOL = 3
"""And for each worker of a pool: its pipes."""
_OF_LOADING = 10
"""And for each that loads images: its pipes, and the tensors that are on their way from it."""
_LATER = 8
"""Open files that a run has later and not yet when it begins: artifacts, what earlier workers left."""
# Only Linux tells a worker who sent SIGTERM; elsewhere it must be able to end it.
_LEFT_TO_PARENT = {signal.SIGINT, signal.SIGTERM} if sys.platform == "linux" else {signal.SIGINT}


class WorkerPool(ProcessPoolExecutor):
    """A pool of processes that serve their parent.

    Args:
        workers: how many.
        prepare: called in each of them before its first task.
    """

    def __init__(self, workers: int, prepare: Callable[[], None] | None = None) -> None:
        require_descriptors(pool=workers)
        # Spawned, not forked: the parent may hold threads and accelerator state that a fork would corrupt.
        super().__init__(workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(prepare,))

    def submit(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """As of any executor. The pool starts its processes here."""
        with shielded():
            return super().submit(function, *args, **kwargs)


class ServingPool(WorkerPool, Generic[_Item, _Result]):
    """A pool that does one kind of work; what the work needs goes to each process once, not with every item.

    Args:
        workers: how many.
        work: pickled to each of them; what it opens stays open there.
    """

    def __init__(self, workers: int, work: Callable[[_Item], _Result]) -> None:
        super().__init__(workers, partial(_take_on, work))

    def hand(self, item: _Item) -> Future[_Result]:
        """Have the work done on an item."""
        return self.submit(_served, item)


_work: Callable[[Any], Any]
"""What this process does, as a worker of a `ServingPool`."""


def _take_on(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _served(item: Any) -> Any:
    return _work(item)


def _begin(prepare: Callable[[], None] | None) -> None:
    serve_parent()
    keep_freed_memory()
    if prepare:
        prepare()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Processes started in this block inherit that they do not heed SIGINT and SIGTERM; see `serve_parent`."""
    resource_tracker.ensure_running()  # started in the block, it would lift the shield
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def require_descriptors(*, pool: int = 0, loading: int = 0, later: int = 0) -> None:
    """Make sure that the system allows as many open files as work with worker processes takes.

    Where they run out in the middle, threads of libraries that nobody can catch die of it, in the workers too: this
    process would wait for ever.

    Args:
        pool: processes of a pool.
        loading: processes that load images.
        later: more files that will be open by the time that they start.

    Raises:
        UserError: it does not.
    """
    wanted = _DESCRIPTORS + _OF_POOL * pool + _OF_LOADING * loading + later
    found: list[int] = []
    try:
        while len(found) < wanted:
            found.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise UserError(
            f"too few open files are allowed here (`ulimit -n` is {limit}, worker processes: {max(pool, loading)}, "
            f"{wanted - len(found)} more are needed); raise the limit (`ulimit -n 4096`) or lower run.workers"
        ) from None
    finally:
        for descriptor in found:
            os.close(descriptor)


def require_descriptors_of_run(config: RunConfig) -> None:
    """Do so for all stages of a run: before hours go by, not in their middle. Raises UserError."""
    loading = loader_workers(config, accelerator=True)  # where most are used
    require_descriptors(pool=pool_workers(config), loading=loading, later=_LATER)


def pool_workers(config: RunConfig) -> int:
    """Processes of CPU-bound work (the CRF, measures): as configured, or one per core."""
    return max(1, config.workers) if config.workers >= 0 else cpu_cores()


def loader_workers(config: RunConfig, *, accelerator: bool) -> int:
    """Processes that load images: as configured, or none where the network needs the few cores there are."""
    if config.workers >= 0:
        return config.workers
    cores = cpu_cores()
    return min(8, cores - 1) if accelerator or cores > 4 else 0


def cpu_cores() -> int:
    """Cores this process may use: its share, where several of torchrun's processes are on the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores // local_count())


def serve_parent(_worker: int = 0) -> None:
    """Leave SIGINT and SIGTERM to the parent, and end when it dies or, by SIGTERM, says so.

    Run first in a worker: without its parent it would wait for work for ever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    for duty in (_end_with_parent, _end_at_its_request):
        threading.Thread(target=duty, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end_at_its_request() -> None:
    if sys.platform == "linux":
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)


Item = TypeVar("Item")
Result = TypeVar("Result")


def look_ahead(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], *, depth: int
) -> Iterator[Result]:
    """Yield the results of ``submit(item)`` in the items' order, with at most ``depth`` of them under way.

    Items are taken only as results are, so finished ones do not pile up where the taker is slow. The one look-ahead
    of the project: for a pool of processes (`ServingPool.hand`), a `ThreadPoolExecutor` or a server alike.

    Raises:
        Exception: what an item's work raised, at its turn; items not yet begun are cancelled.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) == depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[Result]:
    """Yield ``work(item)`` of every item, in order, computed in threads (right here with one thread)."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from look_ahead(lambda item: pool.submit(work, item), items, depth=2 * threads)
