"""The seed's threshold: as configured, or chosen without ground truth."""

import numpy as np

from wsss.artifacts import Artifact
from wsss.config import RefineConfig
from wsss.metrics import THRESHOLDS
from wsss.metrics.indicators import label_free_threshold


def seed_threshold(config: RefineConfig, cams: Artifact) -> float:
    """The background score that the seed and its refinement start from.

    With ``threshold = "label-free"`` it is the one at which colour information (see `wsss.metrics.indicators`),
    averaged over all training images, is largest; ``background`` where no image has a tag.
    """
    if config.threshold == "fixed":
        return config.background
    total = np.zeros(len(THRESHOLDS))
    for image_id in cams.ids:
        total += cams.read(image_id, "colour_information").astype(np.float64)
    chosen = label_free_threshold(total)
    return config.background if chosen is None else chosen
