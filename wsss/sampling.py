"""Which image is in which batch: a function of seed and epoch alone, whatever the number of processes."""

from collections.abc import Iterator

import numpy as np


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of ``count`` images in an epoch: a permutation that depends on seed and epoch alone."""
    return [int(i) for i in np.random.default_rng([seed, epoch]).permutation(count)]


def batch_indices(
    count: int, batch: int, seed: int, first: int, steps: int
) -> Iterator[list[tuple[int, int]]]:
    """The (epoch, image) pairs of every batch from step ``first`` on.

    A remainder smaller than a batch waits for another epoch's order, except when there are fewer images than
    a batch holds: then every batch is the whole set.
    """
    per_epoch = steps_in_epoch(count, batch)
    drawn = -1
    for step in range(first, steps):
        epoch, position = divmod(step, per_epoch)
        if epoch != drawn:
            order, drawn = epoch_order(count, seed, epoch), epoch
        yield [(epoch, index) for index in order[position * batch : (position + 1) * batch]]


def steps_in_epoch(count: int, batch: int) -> int:
    """Optimiser steps per epoch."""
    return max(1, count // batch)
