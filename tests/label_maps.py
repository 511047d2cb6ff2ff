"""Random label maps, which the tests of the metrics share."""

import numpy as np

from wsss.metrics.confusion import Labels

SHAPES = ((1, 1), (1, 2), (1, 17), (23, 1), (2, 31), (7, 9), (24, 17), (70, 90), (150, 130))
GRAINS = (1, 2, 3, 5, 9, 20, 40)


def random_map(seed: int, shape: tuple[int, int], labels: int, ignore: bool = True) -> Labels:
    """(H, W) uint8: blocks of random size, some lines and specks of other labels, and perhaps 255."""
    random = np.random.default_rng(seed)
    grain = int(random.choice(GRAINS))
    coarse = random.integers(0, labels, (shape[0] // grain + 1, shape[1] // grain + 1))
    image = np.kron(coarse, np.ones((grain, grain)))[: shape[0], : shape[1]].astype(np.uint8)
    values = [*range(labels), 255] if ignore else [*range(labels)]
    for _ in range(random.integers(4)):  # thin parts
        width = int(random.integers(1, 4))
        start = int(random.integers(max(shape)))
        image[start : start + width] = random.choice(values)
        image[:, start : start + width] = random.choice(values)
    specks = random.random(shape) < random.choice([0, 0.02, 0.2])
    image[specks] = random.choice(values, specks.sum())
    if ignore and random.random() < 0.05:
        image[:] = 255
    return image


def random_pair(seed: int, shape: tuple[int, int], labels: int) -> tuple[Labels, Labels]:
    """A truth and a prediction that has parts of it right, both with some 255."""
    truth, prediction, other = (random_map(3 * seed + part, shape, labels) for part in range(3))
    right = random_map(seed, shape, 2, ignore=False) == 1
    return truth, np.where(right & (truth != 255), truth, np.where(other == 255, 255, prediction))
