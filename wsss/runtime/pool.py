"""Work on several items at once: worker processes and threads, results in the items' order, how far it is.

Ctrl-C reaches every process of a terminal's command, and SIGTERM often does (``timeout``, systemd, Slurm). Worker
processes leave both to their parent, from their first instruction on: it stops at a safe point, for which it needs
them. They import no torch of their own.
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
from multiprocessing import get_context, resource_tracker
from typing import Any, TypeAlias, TypeVar

from tqdm import tqdm

from wsss.config import RunConfig
from wsss.errors import UserError
from wsss.runtime.distributed import leads, local_count
from wsss.runtime.interrupt import check

Item = TypeVar("Item")
Result = TypeVar("Result")
Submit: TypeAlias = Callable[[Item], Future[Result]]

_OPEN_FILES, _OF_EACH = 64, 10  # of the command; for each worker, whose tensors are on their way here
LOG_INTERVAL = 15.0
"""Seconds between lines where standard error is no terminal."""

# Only Linux tells a worker who sent SIGTERM; elsewhere it must be able to end it.
_LEFT_TO_PARENT = {signal.SIGINT, signal.SIGTERM} if sys.platform == "linux" else {signal.SIGINT}


@contextlib.contextmanager
def worker_processes(count: int, work: Callable[[Item], Result]) -> Iterator[Submit[Item, Result]]:
    """Processes that do one kind of work; yields the function that hands them an item.

    Args:
        count: how many.
        work: pickled to each process once; what it opens stays open there.

    Raises:
        UserError: too few open files are allowed here.
    """
    require_descriptors(count)
    # Spawned, not forked: the parent may hold threads and accelerator state that a fork would corrupt.
    with ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_begin, initargs=(work,)
    ) as pool:

        def submit(item: Item) -> Future[Result]:
            with shielded():  # processes start here
                return pool.submit(_worked, item)

        yield submit


@contextlib.contextmanager
def worker_threads(count: int, work: Callable[[Item], Result]) -> Iterator[Submit[Item, Result]]:
    """The same with threads of this process."""
    with ThreadPoolExecutor(count) as pool:
        yield lambda item: pool.submit(work, item)


def look_ahead(submit: Submit[Item, Result], items: Iterable[Item], *, depth: int) -> Iterator[Result]:
    """Yield the results of ``submit(item)`` in the items' order, with at most ``depth`` of them under way.

    Items are taken only as results are, so finished ones do not pile up where the taker is slow.

    Raises:
        Exception: what an item's work raised, at its turn; items not yet begun are cancelled.
        Interrupted: a stop was asked for, between two results.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(submit(item))
            if len(waiting) == depth:
                check()
                yield waiting.popleft().result()
        while waiting:
            check()
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int) -> Iterator[Result]:
    """Yield ``work(item)`` of every item as `look_ahead` does, computed in threads (right here with one thread)."""
    if threads == 1:
        for item in items:
            check()
            yield work(item)
        return
    with worker_threads(threads, work) as submit:
        yield from look_ahead(submit, items, depth=2 * threads)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Processes started in this block inherit that they do not heed SIGINT and SIGTERM; see `serve_parent`."""
    resource_tracker.ensure_running()  # started in the block, it would lift the shield
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_parent(_worker: int = 0) -> None:
    """Leave SIGINT and SIGTERM to the parent, and end when it dies or, by SIGTERM, says so.

    Run first in a worker: without its parent it would wait for work for ever.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PARENT)
    for duty in (_end_with_parent, _end_at_its_request):
        threading.Thread(target=duty, daemon=True).start()


def require_descriptors(processes: int) -> None:
    """Let this process open as many files as work with so many others takes: some systems allow 256 at first.

    Where they run out in the middle, threads of libraries die of it that nobody can catch.

    Raises:
        UserError: so many are not allowed here.
    """
    wanted = _OPEN_FILES + _OF_EACH * processes
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != allowed < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        except (ValueError, OSError):
            raise UserError(
                f"too few open files are allowed here ({most}; {processes} worker processes need {wanted}); raise the "
                "limit (`ulimit -Hn 4096`) or lower run.workers"
            ) from None


def progress_bar(total: int, label: str, unit: str) -> "tqdm[Any]":
    """A bar on standard error, the leader's alone; use it as a context manager and call ``update(n)``."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=f"{label:>9}",
        unit=f" {unit}",
        dynamic_ncols=True,
        smoothing=0.1,
        mininterval=0.2 if terminal else LOG_INTERVAL,
        ascii=None if terminal else True,
        disable=not leads(),
    )


def pool_workers(config: RunConfig) -> int:
    """Processes of CPU-bound work (the CRF, metrics): as configured, or one per core."""
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


_work: Callable[[Any], Any]
"""What this process does, as a worker."""


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    serve_parent()
    _work = work


def _worked(item: Any) -> Any:
    return _work(item)


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
