"""Scores of artifacts against ground truth: the only place where masks and weak results meet.

Nothing here is read by a stage. Scores are kept in the workspace by what they depend on, so that a run in
which nothing changed scores nothing again.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data import Dataset, Sample
from data.images import read_mask
from stages import Planned
from wsss.artifacts import Artifact, canonical_json, write_text
from wsss.config import Config
from wsss.interrupt import check
from wsss.metrics import THRESHOLDS, Counts, MaskScores, SeedCounts, confusion_counts, mask_scores
from wsss.progress import progress_bar
from wsss.resize import resize_maps

VERSION = 2
Scores = dict[str, Any]


def score(planned: Planned, config: Config, dataset: Dataset, workspace: Path) -> Scores | None:
    """Scores of a stage's artifact, or None where there is nothing to score it against.

    ``cams``: the seed at the configured background score and the whole sweep. ``refine``: the CRF's labels.
    ``segment``: predictions of the validation split.
    """
    split = config.data.val_split if planned.name == "segment" else config.data.train_split
    truth = [sample for sample in dataset.split(split).samples if sample.mask]
    if planned.name == "classify" or not truth:
        return None
    settings = {"background": config.refine.background} if planned.name == "cams" else {}
    digests = [[sample.id, sample.mask_digest] for sample in truth]
    material = canonical_json([VERSION, planned.stamp.fingerprint, settings, digests])
    path = workspace / "scores" / f"{planned.name}-{hashlib.sha256(material.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        scores = _compute(planned, config, truth, len(dataset.classes) + 1)
        write_text(path, json.dumps({"split": split, **settings, **scores}, indent=1))
    loaded: Scores = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _compute(planned: Planned, config: Config, truth: list[Sample], labels: int) -> Scores:
    artifact = Artifact(planned.path, fingerprint=planned.stamp.fingerprint)
    try:
        if planned.name == "cams":
            return seed_scores(artifact, truth, labels, config.refine.background)
        if planned.name == "refine":
            scores = plain_scores(artifact, truth, labels, "labels")
            kept = plain_scores(artifact, truth, labels, "masks")
            return {**scores, "unsure": kept["undecided"], "miou_sure": kept["miou_sure"]}
        return plain_scores(artifact, truth, labels, "predictions")
    finally:
        artifact.close()


def seed_scores(artifact: Artifact, truth: list[Sample], labels: int, background: float) -> Scores:
    """The seed's scores at the given background score, and its mIoU at every threshold."""
    sweep = SeedCounts(labels)
    fixed = SeedCounts(labels, [background])
    for sample in _reported(truth, "score"):
        mask = _truth_of(sample)
        cams = resize_maps(artifact.read(sample.id, "maps"), (mask.shape[0], mask.shape[1]))
        classes = artifact.read(sample.id, "classes")
        sweep.add(mask, cams, classes)
        fixed.add(mask, cams, classes)
    curve = sweep.curve()
    best = int(np.nanargmax(curve)) if np.isfinite(curve).any() else 0
    return {
        **as_json(mask_scores(fixed.confusion(0), fixed.images)),
        "threshold": background,
        "threshold_chosen_by": "configuration (refine.background)",
        "best_miou": curve[best],
        "best_threshold": THRESHOLDS[best],
        "best_chosen_by": "this ground truth",
        "thresholds": list(THRESHOLDS),
        "curve": curve,
    }


def plain_scores(artifact: Artifact, truth: list[Sample], labels: int, name: str) -> Scores:
    """Scores of stored masks."""
    counts: Counts = np.zeros((labels, labels + 1), dtype=np.int64)
    for sample in _reported(truth, "score"):
        counts += confusion_counts(_truth_of(sample), artifact.read(sample.id, name), labels)
    return as_json(mask_scores(counts, len(truth)))


def as_json(scores: MaskScores) -> Scores:
    """Plain JSON values; NaN, which JSON does not have, becomes null."""
    values = {
        "miou": scores.miou,
        "miou_sure": scores.miou_sure,
        "accuracy": scores.accuracy,
        "undecided": scores.undecided,
        "iou": scores.iou.tolist(),
        "precision": scores.precision.tolist(),
        "recall": scores.recall.tolist(),
        "images": scores.images,
    }
    return {key: _without_nan(value) for key, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def _truth_of(sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if sample.mask is None:
        raise ValueError(f"{sample.id} has no mask")
    return read_mask(sample.mask)


def _reported(samples: list[Sample], label: str) -> Iterator[Sample]:
    with progress_bar(len(samples), label, "img") as bar:
        for sample in samples:
            check()
            yield sample
            bar.update()
