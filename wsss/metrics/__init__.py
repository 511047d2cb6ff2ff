"""What is right and what is wrong with masks, with ground truth and without.

With truth: `confusion` (IoU and its kin), `sweep` (the seed at every threshold), `boundary` (Boundary IoU), `failures`
(what self-regulation is about). Without: `indicators`. Between two runs: `bootstrap`. Over several
seeds: `paired`.
"""

from wsss.metrics.confusion import IGNORE, Counts, MaskScores, confusion_counts, mask_scores
from wsss.metrics.sweep import THRESHOLDS, SeedCounts, seed_labels

__all__ = [
    "IGNORE",
    "THRESHOLDS",
    "Counts",
    "MaskScores",
    "SeedCounts",
    "confusion_counts",
    "mask_scores",
    "seed_labels",
]
