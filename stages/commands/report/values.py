"""From counts to the report's figures: flat keys with plain JSON values (docs/report.md).

Scores are shares in [0, 1]; null where undefined. Lists over labels start with background; lists over classes do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.config import RefineConfig
from wsss.errors import plural
from wsss.metrics.confusion import Counts, mask_scores, mean_defined, ratio
from wsss.metrics.failures import FailureCounts
from wsss.metrics.indicators import CHOICE, label_free_threshold, rank_correlation, review_scores
from wsss.metrics.sweep import THRESHOLDS, sweep_ious

Values = dict[str, Any]
"""Flat keys with plain JSON values, described in docs/report.md."""
CURVES = ("mirror_agreement", "scale_agreement", "colour_information")
"""Indicators of the seed at every threshold."""
STAGE_TITLES = {
    "cams": "Seed (class activation maps)",
    "refine": "Pseudo-masks",
    "segment": "Predictions of the trained network",
}
REVIEWED_BY = {
    "cams": (
        "mirror_agreement",
        "scale_agreement",
        "colour_information",
        "confidence",
        "edge_alignment",
        "-area",
    ),
    "refine": ("-unsure", "covered", "edge_alignment", "confidence", "mirror_agreement", "-area"),
    "segment": ("tags_named", "covered", "colour_information", "exit_agreement", "-area"),
}
"""Indicators whose ranks are averaged into the order of review; of one with a minus, less is better."""
RESULTS = {"cams": "seed", "refine": "pseudo-masks", "segment": "predictions"}
"""The same in a word, for sentences and small tables."""


@dataclass
class Counted:
    """What was counted in some images.

    Attributes:
        sums: over images, by name; what no image has is not there. For L labels, C classes, T thresholds, E exits:
            ``tags`` (C, 4): images tagged, of them with a pixel of the class, pixels of it in them, their pixels.
            Of images with ground truth: ``confusion`` (L, L + 1), ``boundary`` (L, 2), ``ignored`` (2,): pixels that
            it ignores and all, and the fields of `FailureCounts`.
            cams: ``sweep`` (T, L, 3), and ``curve.<name>`` (2, T): sums of where it is defined, and their number.
            refine: ``sure`` (L, L + 1): confusion of the masks with their uncertain pixels.
            segment: ``exits`` (E, L, L + 1) confusions; ``named`` (C, 3): images tagged and named by the prediction,
            tagged, named.
        rows: of the images, in order: the columns ``per_image.*`` of docs/report.md.
    """

    sums: dict[str, NDArray[Any]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def merge(self, other: "Counted") -> None:
        """Add what was counted in other, later images."""
        for name, value in other.sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.rows += other.rows


def measured_values(
    stage: str, counted: Counted, background: float, chosen_by: str, exits: Sequence[int] = ()
) -> Values:
    """All figures of one stage; ``background`` is the seed's threshold, ``exits`` the blocks of shallower exits."""
    sums, rows = counted.sums, counted.rows
    values: Values = {"images": len(rows), "scored_images": sum(row["labels"] is not None for row in rows)}
    if "confusion" in sums:
        values |= _scores(sums) | _failures(sums)
    if "exits" in sums:
        values |= {"exits.blocks": list(exits), "exits.miou": [mask_scores(c).miou for c in sums["exits"]]}
    if "sure" in sums:
        sure = mask_scores(sums["sure"])
        values |= {"miou_sure": sure.miou_sure, "unsure_of_truth": sure.undecided}
    if stage == "cams":
        values |= _sweep(sums)
    if stage in ("cams", "refine"):
        values |= {"threshold": background, "threshold_chosen_by": chosen_by}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    values |= _review(stage, columns)
    values |= _indicators(sums, columns) | {f"per_image.{name}": column for name, column in columns.items()}
    found: Values = plain(values)
    return found


def plain(value: Any) -> Any:
    """The same as JSON values: arrays become lists, NaN becomes null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _scores(sums: dict[str, NDArray[Any]]) -> Values:
    confusion, boundary = sums["confusion"], sums["boundary"]
    scores, bands = mask_scores(confusion), ratio(boundary[:, 0], boundary[:, 1])
    return {
        "miou": scores.miou,
        "accuracy": scores.accuracy,
        "fwiou": scores.fwiou,
        "undecided": scores.undecided,
        "boundary_iou": mean_defined(bands[1:]),
        "ignored": ratio(*sums["ignored"]),
        "iou": scores.iou,
        "precision": scores.precision,
        "recall": scores.recall,
        "boundary_iou_by_label": bands,
        "pixels_by_label": confusion.sum(1),
        "confusion": confusion,
    }


def _failures(sums: dict[str, NDArray[Any]]) -> Values:
    """Failure-1 and Failure-2 over all classes, and by class (rows without background)."""
    values: Values = {"failure2.class_mistaken_for": ratio(sums["mistaken"][1:], sums["large"][1:, None])}
    counts = {each.name: sums[each.name] for each in fields(FailureCounts)}
    everything = {name: count.sum(0) for name, count in counts.items()}
    by_class = {name: count[1:] for name, count in counts.items()}
    for prefix, found in (("", everything), ("class_", by_class)):
        values |= {
            f"failure1.{prefix}recall_by_size": _share(found["by_size"]),
            f"failure1.{prefix}missed_by_size": _share(found["objects"]),
            f"failure1.{prefix}objects_by_size": found["objects"][..., 1],
            f"failure1.{prefix}recall_by_depth": _share(found["by_depth"]),
            f"failure1.{prefix}recall_thin": _share(found["thin"]),
            f"failure2.{prefix}mistaken": ratio(found["mistaken"].sum(-1), found["large"]),
            f"failure2.{prefix}split_objects": _share(found["split"]),
            f"failure2.{prefix}large_objects": found["split"][..., 1],
        }
    return values


def _share(counts: Counts) -> NDArray[np.float64]:
    """(..., 2) of a part and all -> the part's share."""
    return ratio(counts[..., 0], counts[..., 1])


def _sweep(sums: dict[str, NDArray[Any]]) -> Values:
    curves = {f"curve.{name}": ratio(*sums[f"curve.{name}"]) for name in CURVES}
    values: Values = {"thresholds": list(THRESHOLDS), **curves}
    free = label_free_threshold(curves["curve.colour_information"])
    if free is not None:
        values |= {"label_free_threshold": free, "label_free_chosen_by": "colour information"}
    if "sweep" in sums:
        miou = mean_defined(sweep_ious(sums["sweep"]))
        best = int(np.nanargmax(miou)) if np.isfinite(miou).any() else 0
        values |= {
            "curve.miou": miou,
            "best_miou": miou[best],
            "best_threshold": THRESHOLDS[best],
            "best_chosen_by": "this ground truth",
        }
        if free is not None:
            values["label_free_miou"] = miou[THRESHOLDS.index(free)]
    return values


def _review(stage: str, columns: dict[str, list[Any]]) -> Values:
    """Each image's place in the order of review and, where there are masks, what that order is worth."""
    names = [name for name in REVIEWED_BY[stage] if f"indicator.{name.lstrip('-')}" in columns]
    signed = [(-1 if name.startswith("-") else 1, f"indicator.{name.lstrip('-')}") for name in names]
    scores = review_scores([sign * np.asarray(columns[key], np.float64) for sign, key in signed])
    if stage != "segment":  # without tags there is no mask to look at
        scores = np.where(np.isnan(columns["indicator.covered"]), np.nan, scores)
    values: Values = {"per_image.review": scores}
    counts = [np.zeros((1, 3)) if rows is None else np.asarray(rows) for rows in columns["labels"]]
    wrong = np.array([rows[:, 2].sum() - rows[:, 1].sum() for rows in counts])
    if any(rows is not None for rows in columns["labels"]):
        miou = np.array([np.nan if value is None else value for value in columns["miou"]])
        worst = np.argsort(scores)[: -(-np.count_nonzero(np.isfinite(scores)) // 10)]  # NaN comes last
        values["review.correlation"] = rank_correlation(scores, miou)
        values["review.worst_tenth"] = ratio(wrong[worst].sum(), wrong.sum())
    return values


def _indicators(sums: dict[str, NDArray[Any]], columns: dict[str, list[Any]]) -> Values:
    """What needs no ground truth: means over the images where an indicator is defined, coverage by class."""
    values: Values = {
        name: mean_defined(np.asarray(column))
        for name, column in columns.items()
        if name.startswith("indicator.")
    }
    tagged, covered, inside, pixels = sums["tags"].T
    values |= {
        "indicator.covered": ratio(covered.sum(), tagged.sum()),
        "indicator.class_tagged": tagged,
        "indicator.class_covered": ratio(covered, tagged),
        "indicator.class_area": ratio(inside, pixels),
    }
    if "named" in sums:
        right, expected, named = sums["named"].T
        values["indicator.tags_named"] = ratio(2 * right.sum(), expected.sum() + named.sum())
        values["indicator.class_tags_named"] = ratio(2 * right, expected + named)
    return values


def answer(metrics: Mapping[str, Values]) -> str:
    """How good the masks are, in a sentence or two; of each stage that is measured, by name."""
    scored = {stage: found for stage, found in metrics.items() if found.get("miou") is not None}
    if not scored:
        return "No image has a mask, so nothing can be scored; the report shows which images to review first."
    parts = [
        f"{100 * found['miou']:.1f} for the {RESULTS[stage]} ({plural(found['scored_images'], 'image')})"
        for stage, found in scored.items()
    ]
    return f"mIoU: {', '.join(parts)}."


def advice(metrics: Mapping[str, Values], refine: RefineConfig, problems: Sequence[str]) -> list[str]:
    """What stands out in the figures of the stages, and what to try; then the ``problems`` of the training tags."""
    seed, masks, network = (metrics.get(stage, {}) for stage in RESULTS)
    found = []
    lost = (seed.get("best_miou") or 0) - (seed.get("miou") or 0)
    if lost > 0.02 and CHOICE[0] <= seed["best_threshold"] <= CHOICE[1]:  # beyond, maps have learned little
        found.append(
            f"The seed's threshold {seed['threshold']:.2f} costs {100 * lost:.1f} points against the best, which this "
            f"ground truth chooses: --set refine.threshold=fixed --set refine.background={seed['best_threshold']:.2f}"
        )
    elif seed and seed["threshold"] <= 0.1:
        found.append(
            f"The seed's threshold is low ({seed['threshold']:.2f}), so that seeds are large: look whether they cover "
            "more than the objects; --set refine.threshold=fixed --set refine.background=0.2"
        )
    before, after = (each.get("failure1.recall_by_size", [None])[0] for each in (seed, masks))
    if before and after is not None and after < 0.7 * before and refine.method != "import":
        more = f"refine.unary_weight={2 * refine.unary_weight:g}"
        other = more if refine.method == "crf" else "refine.method=crf"
        found.append(
            f"The refinement loses tiny objects: of their pixels {100 * before:.0f} % were found before it and "
            f"{100 * after:.0f} % after; --set {other}"
        )
    if (covered := masks.get("indicator.covered")) is not None and covered < 0.95:
        found.append(
            f"{100 * (1 - covered):.0f} % of the tags have no pixel in their image's pseudo-mask: see the coverage by "
            "tag in the report"
        )
    if network.get("miou") is not None and (masks.get("miou") or 0) - network["miou"] > 0.1:
        found.append(
            f"The network stays {100 * (masks['miou'] - network['miou']):.0f} points behind the masks it learned from: "
            "try more segment.epochs, or another segment.head or segment.structure"
        )
    return [*found, *problems]


def result(stage: str, values: Values | None, refine: RefineConfig) -> str:
    """A stage's score in words: what was measured, on what, and who chose the threshold."""
    if stage == "classify":
        return ""
    if values is None:
        return "no images to score"
    if not values["scored_images"]:
        return "no masks to score against; see the report's indicators"
    miou, best, unsure = (
        "-" if values.get(key) is None else f"{100 * values[key]:.1f}"
        for key in ("miou", "best_miou", "indicator.unsure")
    )
    if stage == "cams":
        chosen = "set in the configuration" if refine.threshold == "fixed" else "chosen without ground truth"
        return (
            f"seed mIoU {miou} at {values['threshold']:.2f} ({chosen}); "
            f"best {best} at {values['best_threshold']:.2f} (chosen by this ground truth)"
        )
    if stage == "refine":
        return f"pseudo-mask mIoU {miou} ({unsure} % of pixels left out as uncertain)"
    return f"validation mIoU {miou} ({values['scored_images']} images)"
