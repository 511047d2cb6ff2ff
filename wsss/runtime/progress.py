"""Progress bars: rate and remaining time, on terminals live, in log files a line now and then."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from wsss.runtime import distributed

LOG_INTERVAL = 15.0
"""Seconds between lines where standard error is no terminal."""


def progress_bar(total: int, label: str, unit: str) -> "tqdm[Any]":
    """A bar on standard error; use it as a context manager and call ``update(n)``."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=f"{label:>9}",
        unit=f" {unit}",
        dynamic_ncols=True,
        smoothing=0.1,
        mininterval=0.2 if terminal else LOG_INTERVAL,
        ascii=None if terminal else True,
        disable=not distributed.leads(),
    )


class Pace:
    """Tells ``done`` of the images of all processes, as if they kept up with this one."""

    def __init__(self, images: int, done: Callable[[int], object]) -> None:
        self.images, self.done = images, done
        self.own = self.told = 0

    def __call__(self, finished: int) -> None:
        """Tell of images that this process has finished."""
        self.own += finished
        reached = min(self.images, self.own * distributed.count())
        self.done(reached - self.told)
        self.told = reached
