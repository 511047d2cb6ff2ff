"""How many of some ascending limits each of many values reaches, without a search for each value."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Steps:
    """A table over the upper half of a value's 32 bits, which order positive values as the values themselves.

    The upper half names an interval of relative width 1 / 128. What is reached at its lower end is looked up, and
    one comparison settles the limit that lies inside, if any.

    Args:
        limits: T ascending positive numbers, T < 256.
    """

    def __init__(self, limits: Sequence[float]) -> None:
        self.limits = np.asarray(limits, np.float32)
        ends = (np.arange(1 << 15, dtype=np.uint32) << 16).view(
            np.float32
        )  # of the positive half; NaN at last
        self._below = np.zeros(1 << 16, np.uint8)
        self._below[: len(ends)] = np.searchsorted(self.limits, ends, side="right")
        self._inside = np.full(1 << 16, np.nan, np.float32)  # which nothing reaches, not even infinity
        keys = self.limits.view(np.uint32) >> 16
        within = self.limits > ends[keys]
        self._inside[keys[within]] = self.limits[within]
        self._sparse = len(set(keys[within].tolist())) == within.sum()

    def reached(self, values: NDArray[np.float32]) -> NDArray[np.integer]:
        """The number of limits at or below each value: ``np.searchsorted(limits, values, side="right")``."""
        if not self._sparse:
            return np.searchsorted(self.limits, values, side="right")
        keys = np.ascontiguousarray(values).view(np.uint32) >> 16
        counts: NDArray[np.uint8] = self._below[keys]
        counts += values >= self._inside[keys]
        return counts
