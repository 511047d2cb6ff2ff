"""How many processes to use, without importing torch."""

import multiprocessing
import os
import signal
import threading

from wsss.config import RunConfig
from wsss.processes import local_count


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


def serve_parent() -> None:
    """Leave SIGINT to the parent, which stops at a safe point and then ends its pool, and end when it dies.

    Run first in a worker: without its parent it would wait for work for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
