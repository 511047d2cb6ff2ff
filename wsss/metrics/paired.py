"""Paired differences over repeated trainings, with Student's t interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


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
