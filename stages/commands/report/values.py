"""From counts to the report's figures: flat keys with plain JSON values, described in docs/report.md.

Scores are shares in [0, 1]; null where undefined. Lists over labels start with background; lists over classes do not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.commands.report.images import Chunk
from wsss.metrics import THRESHOLDS, Counts, SeedCounts, mask_scores
from wsss.metrics.failures import FailureCounts
from wsss.metrics.indicators import label_free_threshold
from wsss.metrics.tally import Tally, image_ious

Values = dict[str, Any]
"""Flat keys with plain JSON values, described in docs/report.md."""


def measured_values(
    stage: str, chunk: Chunk, background: float, chosen_by: str, exits: Sequence[int] = ()
) -> Values:
    """All figures of one stage; ``background`` is the seed's threshold, ``exits`` the blocks of shallower exits."""
    values: Values = {"images": len(chunk.ids), "scored_images": len(chunk.tally.rows)}
    if chunk.tally.rows:
        values |= score_values(chunk.tally) | failure_values(chunk.tally.failures)
    if exits and chunk.tally.rows:
        values |= {"exits.blocks": list(exits), "exits.miou": exit_mious(chunk)}
    if stage == "refine" and chunk.tally.rows:
        sure = mask_scores(chunk.sure, len(chunk.tally.rows))
        values |= {"miou_sure": sure.miou_sure, "unsure_of_truth": sure.undecided}
    if stage == "cams":
        values |= _sweep_values(chunk)
    if stage in ("cams", "refine"):
        values |= {"threshold": background, "threshold_chosen_by": chosen_by}
    values |= indicator_values(stage, chunk)
    values |= per_image_values(chunk)
    result: Values = plain(values)
    return result


def score_values(tally: Tally) -> Values:
    """Scores against ground truth."""
    scores = mask_scores(tally.confusion, len(tally.rows))
    bands = ratio(tally.boundary[:, 0], tally.boundary[:, 1])
    return {
        "miou": scores.miou,
        "accuracy": scores.accuracy,
        "fwiou": scores.fwiou,
        "undecided": scores.undecided,
        "boundary_iou": mean(bands[1:]),
        "ignored": float(ratio(tally.ignored[:1], tally.ignored[1:])[0]),
        "iou": scores.iou,
        "precision": scores.precision,
        "recall": scores.recall,
        "boundary_iou_by_label": bands,
        "pixels_by_label": tally.confusion.sum(1),
        "confusion": tally.confusion,
    }


def exit_mious(chunk: Chunk) -> list[float]:
    """(E,) mIoU of each shallower exit, on the images on which the deployed network is scored."""
    return [mask_scores(confusion, len(chunk.tally.rows)).miou for confusion in chunk.exits]


def failure_values(failures: FailureCounts) -> Values:
    """Failure-1 and Failure-2 over all classes, and by class (rows without background)."""
    everything = {name: counts.sum(0) for name, counts in vars(failures).items()}
    mistaken = failures.mistaken[1:].sum(1)
    return {
        "failure1.recall_by_size": _found(everything["by_size"]),
        "failure1.missed_by_size": _found(everything["objects"]),
        "failure1.objects_by_size": everything["objects"][:, 1],
        "failure1.recall_by_depth": _found(everything["by_depth"]),
        "failure1.recall_thin": float(_found(everything["thin"])),
        "failure1.class_recall_by_size": _found(failures.by_size[1:]),
        "failure1.class_missed_by_size": _found(failures.objects[1:]),
        "failure1.class_objects_by_size": failures.objects[1:, :, 1],
        "failure1.class_recall_by_depth": _found(failures.by_depth[1:]),
        "failure1.class_recall_thin": _found(failures.thin[1:]),
        "failure2.mistaken": float(ratio(mistaken.sum(), failures.large[1:].sum())),
        "failure2.split_objects": float(_found(everything["split"])),
        "failure2.large_objects": int(everything["split"][1]),
        "failure2.class_mistaken": ratio(mistaken, failures.large[1:]),
        "failure2.class_split_objects": _found(failures.split[1:]),
        "failure2.class_large_objects": failures.split[1:, 1],
        "failure2.class_mistaken_for": ratio(failures.mistaken[1:], failures.large[1:, None]),
    }


def indicator_values(stage: str, chunk: Chunk) -> Values:
    """What needs no ground truth: means over the images where an indicator is defined, coverage by class."""
    values: Values = {
        f"indicator.{name}": mean(np.asarray(found)) for name, found in chunk.indicators.items()
    }
    tagged, covered, inside, pixels = chunk.tags.T
    values["indicator.covered"] = float(ratio(covered.sum(), tagged.sum()))
    values["indicator.class_tagged"] = tagged
    values["indicator.class_covered"] = ratio(covered, tagged)
    values["indicator.class_area"] = ratio(inside, pixels)
    if stage == "segment":
        right, expected, named = chunk.named.T
        values["indicator.tags_named"] = float(ratio(2 * right.sum(), expected.sum() + named.sum()))
        values["indicator.class_tags_named"] = ratio(2 * right, expected + named)
    return values


def per_image_values(chunk: Chunk) -> Values:
    """A list per column, an entry per image; ``labels`` and ``failures`` are null for images without truth."""
    rows = [chunk.tally.rows.get(image_id) for image_id in chunk.ids]
    return {
        "per_image.id": chunk.ids,
        "per_image.miou": [None if row is None else mean(image_ious(row.labels)) for row in rows],
        "per_image.labels": [None if row is None else row.labels for row in rows],
        "per_image.failures": [None if row is None else row.failures for row in rows],
        **{f"per_image.indicator.{name}": found for name, found in chunk.indicators.items()},
    }


def ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    """part / whole, NaN where whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan))


def mean(values: NDArray[np.float64]) -> float:
    """Mean of the defined values, NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def plain(value: Any) -> Any:
    """The same as JSON values: arrays become lists, NaN becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _found(counts: Counts) -> NDArray[np.float64]:
    """(..., 2) of found and all -> share found."""
    return ratio(counts[..., 0], counts[..., 1])


def _sweep_values(chunk: Chunk) -> Values:
    curves = {f"curve.{name}": ratio_of(sums) for name, sums in chunk.curves.items()}
    values: Values = {"thresholds": list(THRESHOLDS), **curves}
    chosen = label_free_threshold(curves["curve.colour_information"])
    if chosen is not None:
        values |= {"label_free_threshold": chosen, "label_free_chosen_by": "colour information"}
    if chunk.tally.rows:
        values |= _truth_sweep(chunk.sweep, values.get("label_free_threshold"))
    return values


def _truth_sweep(sweep: SeedCounts, label_free: float | None) -> Values:
    curve = np.asarray(sweep.curve())
    best = int(np.nanargmax(curve)) if np.isfinite(curve).any() else 0
    values: Values = {
        "curve.miou": curve,
        "best_miou": curve[best],
        "best_threshold": THRESHOLDS[best],
        "best_chosen_by": "this ground truth",
    }
    if label_free is not None:
        values["label_free_miou"] = curve[THRESHOLDS.index(label_free)]
    return values


def ratio_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, T) sums and numbers -> (T,) means, NaN where there is none."""
    return np.asarray(np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1), np.nan))
