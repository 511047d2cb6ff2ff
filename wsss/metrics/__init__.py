"""What is right and what is wrong with masks, with ground truth and without.

With truth: `confusion` (IoU and its kin), `sweep` (the seed at every threshold), `boundary` (Boundary IoU), `failures`
(what self-regulation is about). Without: `indicators`. Between two runs: `bootstrap`. Over several
seeds: `paired`.
"""

from wsss import IGNORE
from wsss.metrics.confusion import MaskScores, confusion_counts, label_pixels, mask_scores
from wsss.metrics.counting import Counts
from wsss.metrics.sweep import THRESHOLDS, SeedCounts, reaching, seed_labels, strongest_labels

__all__ = [
    "IGNORE",
    "THRESHOLDS",
    "Counts",
    "MaskScores",
    "SeedCounts",
    "confusion_counts",
    "label_pixels",
    "mask_scores",
    "reaching",
    "seed_labels",
    "strongest_labels",
]
