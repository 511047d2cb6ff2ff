"""Progress bars: rate and remaining time, on terminals live, in log files a line now and then."""

import sys
from typing import Any

from tqdm import tqdm

from wsss.runtime import distributed

LOG_INTERVAL = 15.0
"""Seconds between lines where standard error is no terminal."""


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
        disable=not distributed.leads(),
    )
