"""How sure a difference is: paired bootstrap over images, Student's t over repeated trainings."""

import warnings
from collections.abc import Callable, Sequence
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
    """Figures of two runs on the same images, and 95 % intervals of their differences (Efron 1979).

    Both runs are scored on the same resampled images, so what makes an image easy or hard for both cancels out.
    The interval holds the 2.5th to the 97.5th percentile of the resampled differences. scipy.stats.bootstrap has no
    tables of images whose figures may be undefined in some resamples.

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
    random, images = np.random.default_rng(seed), len(a)
    block, draws = max(1, BLOCK_BYTES // (8 * images)), []
    for start in range(0, resamples, block):
        # How often each image is drawn; the block, a matter of memory, does not change the draws.
        rows = min(block, resamples - start)
        weights = random.multinomial(images, np.full(images, 1 / images), size=rows).astype(np.float64)
        draws.append(statistic(weights @ second) - statistic(weights @ first))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        low, high = np.nanpercentile(np.concatenate(draws), [2.5, 97.5], axis=0)
    return Difference(statistic(first.sum(0)[None])[0], statistic(second.sum(0)[None])[0], low, high)


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference over ``pairs`` pairs, with the ends of its interval; None for a single pair."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and zero is outside it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation with n - 1 below the root; None for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_difference(first: Sequence[float], other: Sequence[float]) -> PairedDifference:
    """Mean of ``other - first``, pair by pair (such as mIoU with each seed), with its 95 % interval of Student's t.

    It assumes normal differences; with as few pairs as there are seeds that cannot be checked.

    Raises:
        ValueError: no pairs, or different lengths.
    """
    from scipy import stats  # takes long to import, and only `ablate` needs it

    differences = [b - a for a, b in zip(first, other, strict=True)]
    if not differences:
        raise ValueError("no pairs")
    mean, count = float(np.mean(differences)), len(differences)
    if count == 1:
        return PairedDifference(mean, None, None, 1)
    reach = float(stats.t.ppf(0.975, count - 1) * stats.sem(differences))
    return PairedDifference(mean, mean - reach, mean + reach, count)
