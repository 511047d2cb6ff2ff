"""How good masks are, with ground truth and without.

With ground truth: `confusion` (IoU and related scores), `sweep` (the seed at every threshold), `boundary` (Boundary
IoU), `failures` (what self-regulation is about). Without: `indicators`. Between two runs or several seeds: `intervals`.
"""

from wsss.metrics.confusion import Counts, Labels, MaskScores, confusion_counts, label_pixels, mask_scores
from wsss.metrics.sweep import THRESHOLDS, reaching, seed_labels, strongest_labels, sweep_counts, sweep_ious

__all__ = [
    "THRESHOLDS",
    "Counts",
    "Labels",
    "MaskScores",
    "confusion_counts",
    "label_pixels",
    "mask_scores",
    "reaching",
    "seed_labels",
    "strongest_labels",
    "sweep_counts",
    "sweep_ious",
]
