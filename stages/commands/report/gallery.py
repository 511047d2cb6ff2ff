"""The report's pictures: which images stand for a stage, and what is shown of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from stages.commands.report import pictures
from stages.commands.report.values import Values
from wsss.metrics import label_pixels, seed_labels
from wsss.resize import resize_maps
from wsss.store.artifacts import Artifact

EACH = 3
"""Images shown of the worst, the median and the best."""
MASKS = {"cams": "seed", "refine": "pseudo-mask", "segment": "prediction"}
"""What a stage's mask is called."""
RANKED_BY = {"cams": "mirror_agreement", "refine": "cam_agreement", "segment": "tags_named"}
"""The indicator that ranks images where there is no ground truth."""


@dataclass(frozen=True)
class Panel:
    """One picture: its heading, its ``data:`` address, its text for those who cannot see it."""

    heading: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Exhibit:
    """One image with all its pictures.

    Attributes:
        group: ``worst``, ``median``, ``best``, or the class it stands for.
        image_id: the image.
        caption: its score.
        labels: mask values of its tags.
        panels: left to right.
    """

    group: str
    image_id: str
    caption: str
    labels: tuple[int, ...]
    panels: tuple[Panel, ...]


def choose(
    stage: str, values: Values, samples: Mapping[str, Sample], classes: Sequence[str]
) -> list[tuple[str, str]]:
    """(group, image id) pairs: the worst, median and best images, then one typical image per class.

    Images are ranked by their own mIoU, without ground truth by an indicator. A class is shown by the image with
    its median score among those tagged with it, that is not shown yet if there is one.
    """
    ranked = ranking(stage, values)
    shown = _extremes(ranked)
    for tag, name in enumerate(classes):
        tagged = [image_id for image_id in ranked if tag in samples[image_id].tags]
        fresh = [image_id for image_id in tagged if image_id not in {known for _, known in shown}] or tagged
        if fresh:
            shown.append((name, fresh[len(fresh) // 2]))
    return shown


def ranking(stage: str, values: Values) -> list[str]:
    """Image ids, worst first; images without a score are left out."""
    column = "per_image.miou"
    if not values["scored_images"]:
        column = f"per_image.indicator.{RANKED_BY[stage]}"
    scores = values.get(column) or [None] * values["images"]
    known = [
        (score, image_id)
        for score, image_id in zip(scores, values["per_image.id"], strict=True)
        if score is not None
    ]
    return [image_id for _, image_id in sorted(known)] or list(values["per_image.id"])


def exhibit(
    group: str,
    sample: Sample,
    stage: str,
    artifacts: Mapping[str, Artifact],
    *,
    background: float,
    classes: Sequence[str],
    score: float | None,
) -> Exhibit:
    """Paint one image: photograph, CAM, mask, truth and error map, as far as there are any."""
    image = pictures.small(read_image(sample.image))
    tags = ", ".join(classes[tag] for tag in sample.tags) or "no tags"
    panels = [photograph(sample, image, classes)]
    if stage != "segment" and "cams" in artifacts:
        seed = artifacts["cams"]
        uri = pictures.cams_uri(
            image, seed.read(sample.id, "maps"), [int(label) + 1 for label in seed.read(sample.id, "classes")]
        )
        panels.append(Panel("CAM", uri, f"class activation maps of {tags}"))
    mask = stage_mask(stage, artifacts[stage], sample, background)
    panels.append(mask_panel(MASKS[stage], image, mask, classes))
    truth = sample.mask.read() if sample.mask else None
    if truth is not None:
        panels.append(mask_panel("truth", image, truth, classes))
        panels.append(error_panel("errors", image, truth, mask))
    caption = "" if score is None else f"mIoU {100 * score:.1f}"
    return Exhibit(group, sample.id, caption, tuple(tag + 1 for tag in sample.tags), tuple(panels))


def stage_mask(stage: str, artifact: Artifact, sample: Sample, background: float) -> NDArray[np.uint8]:
    """(H, W) the labels by which a stage is judged."""
    if stage == "cams":
        cams = resize_maps(artifact.read(sample.id, "maps"), sample.size)
        return seed_labels(cams, artifact.read(sample.id, "classes"), background)
    return np.asarray(artifact.read(sample.id, {"refine": "labels", "segment": "predictions"}[stage]))


def photograph(sample: Sample, image: NDArray[np.uint8], classes: Sequence[str]) -> Panel:
    """The photograph's panel."""
    tags = ", ".join(classes[tag] for tag in sample.tags) or "no tags"
    return Panel("photograph", pictures.photograph_uri(image), f"photograph {sample.id}: {tags}")


def mask_panel(
    heading: str, image: NDArray[np.uint8], mask: NDArray[np.uint8], classes: Sequence[str]
) -> Panel:
    """A mask's panel."""
    return Panel(heading, pictures.labels_uri(image, mask), f"{heading}: {_shares(mask, classes)}")


def error_panel(
    heading: str, image: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> Panel:
    """An error map's panel."""
    return Panel(heading, pictures.error_uri(image, truth, mask), f"{heading}: {_errors(truth, mask)}")


def _extremes(ranked: list[str]) -> list[tuple[str, str]]:
    count = len(ranked)
    if count <= 3 * EACH:
        return [("worst first", image_id) for image_id in ranked]
    middle = (count - EACH) // 2
    groups = {"worst": ranked[:EACH], "median": ranked[middle : middle + EACH], "best": ranked[-EACH:]}
    return [(group, image_id) for group, ids in groups.items() for image_id in ids]


def _shares(labels: NDArray[np.uint8], classes: Sequence[str]) -> str:
    counts = label_pixels(labels)
    named = [
        f"{'unsure or ignored' if label == 255 else classes[label - 1]} {100 * counts[label] / labels.size:.0f} %"
        for label in np.flatnonzero(counts).tolist()
        if label
    ]
    return ", ".join(named) or "background only"


def _errors(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> str:
    kinds = np.bincount(pictures.error_kinds(truth, mask).ravel(), minlength=len(pictures.ERRORS) + 1)
    shares = zip(pictures.ERRORS, kinds[1:], strict=True)
    return ", ".join(f"{name} {100 * count / truth.size:.0f} %" for name, count in shares)
