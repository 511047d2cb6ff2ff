"""Paired bootstrap over images (Efron 1979): how sure is a difference between two runs?

Both runs are scored on the same resampled images, so what makes an image easy or hard for both cancels out.
The interval holds the 2.5th to the 97.5th percentile of the resampled differences.

Paired differences over repeated trainings, with Student's t interval.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
Statistic = Callable[[Table], Table]

RESAMPLES = 2000
BLOCK_BYTES = 32 << 20
"""Memory for the weights of a block of resamples."""


@dataclass(frozen=True)
class Difference:
    """B minus A for S figures; NaN where a figure is undefined in either.

    Intervals are over the resamples in which the figure is defined.

    Attributes:
        a: (S,) the figures of A on all images.
        b: (S,) of B.
        low: (S,) lower end of the 95 % interval of b - a.
        high: (S,) upper end.
    """

    a: Table
    b: Table
    low: Table
    high: Table

    @property
    def value(self) -> Table:
        """(S,) b - a."""
        return self.b - self.a


def paired_bootstrap(
    a: NDArray[np.number],
    b: NDArray[np.number],
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Figures of two runs on the same images, and 95 % intervals of their differences.

    Args:
        a: (n, F) what A contributes per image, for example pixel counts; summed over images before they are used.
        b: (n, F) of B, the same images in the same order.
        statistic: (R, F) sums -> (R, S) figures; may give NaN.
        seed: of the resampling.
        resamples: number of resamples; at least 2,000 for figures that are quoted.

    Raises:
        ValueError: no images, or the shapes differ.
    """
    if a.shape != b.shape or not len(a):
        raise ValueError(f"expected two equal, non-empty tables of images, got {a.shape} and {b.shape}")
    first, second = a.astype(np.float64), b.astype(np.float64)
    draws = [
        statistic(weights @ second) - statistic(weights @ first)
        for weights in _weights(len(a), resamples, seed)
    ]
    low, high = _percentiles(np.concatenate(draws))
    return Difference(statistic(first.sum(0)[None])[0], statistic(second.sum(0)[None])[0], low, high)


def _weights(images: int, resamples: int, seed: int) -> Iterator[Table]:
    """How often each image is drawn, (r, n) for as many resamples at a time as memory allows."""
    random = np.random.default_rng(seed)
    block = max(1, BLOCK_BYTES // (8 * images))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        # Row by row, so that the block size, a matter of memory, does not change the draws.
        drawn = [np.bincount(random.integers(images, size=images), minlength=images) for _ in range(rows)]
        yield np.asarray(drawn, dtype=np.float64)


def _percentiles(draws: Table) -> tuple[Table, Table]:
    """The 2.5th and 97.5th percentile per column, over the resamples in which it is defined."""
    low, high = np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    for column in range(draws.shape[1]):
        defined = draws[:, column][np.isfinite(draws[:, column])]
        if len(defined):
            low[column], high[column] = np.percentile(defined, [2.5, 97.5])
    return low, high


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference with its interval.

    Attributes:
        mean: of the differences.
        low: lower end of the interval; None for a single pair.
        high: upper end; None for a single pair.
        pairs: how many.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and zero is outside it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation with n - 1 below the root; None for one value. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1))


def paired_difference(
    first: Sequence[float], other: Sequence[float], *, level: float = 0.95
) -> PairedDifference:
    """Mean of ``other - first``, pair by pair, with its t interval: mean +- t(n - 1) s / sqrt(n).

    Source: Student (1908), The Probable Error of a Mean, Biometrika 6. It takes the differences as normal; with as
    few pairs as there are seeds that cannot be checked.

    Args:
        first: one value per pair, such as the baseline's mIoU with each seed.
        other: the other's, in the same order.
        level: of confidence, in (0, 1).

    Returns:
        The mean, and the interval where there are two pairs or more.

    Raises:
        ValueError: no pairs, different lengths, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level}: expected a share between 0 and 1")
    differences = [b - a for a, b in zip(first, other, strict=True)]
    mean, deviation = mean_and_deviation(differences)
    if deviation is None:
        return PairedDifference(mean, None, None, 1)
    from scipy.special import stdtrit

    count = len(differences)
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * deviation / math.sqrt(count)
    return PairedDifference(mean, mean - reach, mean + reach, count)
