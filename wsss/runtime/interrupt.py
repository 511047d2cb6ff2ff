"""Stopping at a safe point: the first SIGINT or SIGTERM asks, work in progress checks, a second one insists."""

import signal
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Work was stopped on request at a safe point."""


_requested = False


def install() -> None:
    """Turn SIGINT and SIGTERM into a request that `check` answers. For the main process alone."""
    global _requested
    _requested = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


def check() -> None:
    """Raise `Interrupted` if a stop was asked for. Call it where everything done so far is safe."""
    if _requested:
        raise Interrupted


def requested() -> bool:
    """Whether a stop was asked for."""
    return _requested


def _ask(_number: int, _frame: FrameType | None) -> None:
    global _requested
    if _requested:
        raise KeyboardInterrupt
    _requested = True
