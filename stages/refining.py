"""What both methods of stage `refine` share: what they start from, and what they end with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from wsss.artifacts import Arrays, Artifact
from wsss.crf import probabilities, pseudo_mask
from wsss.resize import resize_image, resize_labels, resize_maps, working_size


@dataclass(frozen=True)
class Seed:
    """What a refiner is given of one image.

    Attributes:
        image: (h, w, 3) uint8, the photograph at the working size.
        probability: (K + 1, h, w) float32 over background and the tagged classes, sums to 1.
        labels: (K + 1,) int64, their mask values; the first is 0.
        full: (H, W) of the photograph.
    """

    image: NDArray[np.uint8]
    probability: NDArray[np.float32]
    labels: NDArray[np.int64]
    full: tuple[int, int]


@dataclass(frozen=True)
class SeedReader:
    """Reads photographs and CAMs; picklable, and safe in threads.

    Attributes:
        cams: the artifact of stage `cams`.
        max_side: long side of the working size at most.
        background: the background score.
    """

    cams: Artifact
    max_side: int
    background: float

    def __call__(self, sample: Sample) -> Seed:
        """The seed of a sample."""
        image = read_image(sample.image)
        full = (image.shape[0], image.shape[1])
        size = working_size(*full, self.max_side)
        maps = resize_maps(self.cams.read(sample.id, "maps"), size)
        labels = np.concatenate([[0], self.cams.read(sample.id, "classes").astype(np.int64) + 1])
        return Seed(resize_image(image, size), probabilities(maps, self.background), labels, full)


def decide(seed: Seed, posterior: NDArray[np.float32], unsure: float) -> Arrays:
    """The arrays ``masks`` and ``labels``, both (H, W) uint8, from a posterior (K + 1, h, w)."""
    mask, best = pseudo_mask(posterior, seed.labels, unsure=unsure)
    return {"masks": resize_labels(mask, seed.full), "labels": resize_labels(best, seed.full)}
