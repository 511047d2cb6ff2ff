"""The report's images: which ones stand for a stage, and what is shown of each; the run's overview.png."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data import Sample, overview_samples
from data.images import read_image
from stages import Planned
from stages.commands.report.measure import scored_images
from stages.commands.report.values import Values
from stages.commands.session import Session
from wsss import IGNORE
from wsss.metrics.confusion import Labels, label_pixels
from wsss.metrics.sweep import seed_labels
from wsss.pictures import Rgb, darkened, draw_grid, legend, paint_cams, paint_labels
from wsss.resize import resize_image, resize_labels, resize_maps, working_size
from wsss.store.artifacts import Artifact
from wsss.store.files import atomic_path

SIDE = 280
"""Pixels of a panel's long side in the page."""
EACH = 3
"""Images shown of the worst, the median and the best."""
MASKS = {"cams": "seed", "refine": "pseudo-mask", "segment": "prediction"}
"""What a stage's mask is called."""
REVIEW = "review"
"""The group of the images to look at first, without looking at ground truth."""
QUEUE = 12
"""Images shown of them."""
ERRORS: Mapping[str, tuple[int, int, int]] = {
    "false negative": (0, 114, 178),
    "false positive": (240, 228, 66),
    "wrong class": (213, 94, 0),
    "ignored": (255, 255, 255),
}
"""Colours of the error map (Okabe and Ito's blue, yellow and vermilion; a test holds them to stay apart for every kind
of colour blindness). What is right shows the image in grey."""


@dataclass(frozen=True)
class Panel:
    """One picture: its heading, its ``data:`` address, its text for those who cannot see it."""

    heading: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Exhibit:
    """One image with all its pictures, left to right; ``group`` is worst, median, best, or the class it stands for.

    ``labels`` are the mask values of its tags.
    """

    group: str
    image_id: str
    caption: str
    labels: tuple[int, ...]
    panels: tuple[Panel, ...]


def choose(values: Values, samples: Mapping[str, Sample], classes: Sequence[str]) -> list[tuple[str, str]]:
    """(group, image id) pairs: those to review first; the worst, median and best; one typical image per class.

    Images are ranked by their own mIoU, without ground truth by the order of review. A class is shown by the image
    with its median score among those tagged with it, that is not shown yet if there is one.
    """
    queue, ranked = (_ranked(values, column) for column in ("review", "miou"))
    ranked = ranked or queue or list(values["per_image.id"])
    shown = [("worst first", image) for image in ranked]
    if len(ranked) > 3 * EACH:
        middle = (len(ranked) - EACH) // 2
        groups = {"worst": ranked[:EACH], "median": ranked[middle : middle + EACH], "best": ranked[-EACH:]}
        shown = [(group, image) for group, images in groups.items() for image in images]
    for tag, name in enumerate(classes):
        tagged = [image for image in ranked if tag in samples[image].tags]
        fresh = [image for image in tagged if image not in {known for _, known in shown}] or tagged
        if fresh:
            shown.append((name, fresh[len(fresh) // 2]))
    return [*((REVIEW, image) for image in queue[:QUEUE]), *shown]


def _ranked(values: Values, column: str) -> list[str]:
    """Ids of the images that have a figure, the least first."""
    pairs = zip(values[f"per_image.{column}"], values["per_image.id"], strict=True)
    return [image for _, image in sorted(pair for pair in pairs if pair[0] is not None)]


def exhibits(session: Session, stage: str, values: Values) -> list[Exhibit]:
    """The chosen images of a measured stage, with CAM, mask, ground truth and errors as far as there are any."""
    scored, planned = scored_images(session, stage), session.planned
    samples = {sample.id: sample for sample in scored.samples}
    columns = (values[f"per_image.{name}"] for name in ("id", "miou", "review"))
    scores = {image: figures for image, *figures in zip(*columns, strict=True)}
    artifact, seed = Artifact(planned[stage].path), _opened(planned, "cams") if stage != "segment" else None
    found = []
    for group, image_id in choose(values, samples, scored.classes):
        sample, (miou, score) = samples[image_id], scores[image_id]
        picture = Picture(sample, scored.classes)
        panels = [picture.image()]
        if seed and group != REVIEW:
            panels.append(picture.cams(seed))
        mask = stage_mask(stage, artifact, sample, values.get("threshold", 0.0))
        panels.append(picture.mask(MASKS[stage], mask))
        if picture.truth is not None and group != REVIEW:
            panels += [picture.mask("ground truth", picture.truth), picture.errors("errors", mask)]
        caption = "" if miou is None else f"mIoU {100 * miou:.1f}"
        if group == REVIEW:
            caption = f"score {score:.2f}"
        found.append(Exhibit(group, image_id, caption, picture.labels, tuple(panels)))
    for opened in filter(None, (artifact, seed)):
        opened.close()
    return found


def stage_mask(stage: str, artifact: Artifact, sample: Sample, background: float) -> Labels:
    """(H, W) the labels by which a stage is judged."""
    if stage == "cams":
        cams = resize_maps(artifact.read(sample.id, "maps"), sample.size)
        return seed_labels(cams, artifact.read(sample.id, "classes"), background)
    return np.asarray(artifact.read(sample.id, {"refine": "labels", "segment": "predictions"}[stage]))


class Picture:
    """Panels of one image; masks are (H, W) of its own size.

    Args:
        sample: the image.
        classes: C names.
    """

    def __init__(self, sample: Sample, classes: Sequence[str]) -> None:
        self.sample, self.classes = sample, classes
        self.size = working_size(*sample.size, SIDE)
        self.small = resize_image(read_image(sample.image), self.size)
        self.truth = sample.mask.read() if sample.mask else None
        self.labels = tuple(tag + 1 for tag in sample.tags)
        self.tags = ", ".join(classes[tag] for tag in sample.tags) or "no tags"

    def image(self) -> Panel:
        """The image itself."""
        return self._panel("image", self.small, f"image {self.sample.id}: {self.tags}")

    def cams(self, seed: Artifact) -> Panel:
        """The class activation maps."""
        maps, classes = (seed.read(self.sample.id, name) for name in ("maps", "classes"))
        painted = paint_cams(self.small, resize_maps(maps, self.size), classes.astype(int) + 1)
        return self._panel("CAM", painted, f"class activation maps of {self.tags}")

    def mask(self, heading: str, mask: Labels) -> Panel:
        """A mask in the VOC colours."""
        names = legend(np.unique(mask).tolist(), self.classes, "uncertain or ignored")
        painted = paint_labels(self.small, resize_labels(mask, self.size))
        return self._panel(heading, painted, f"{heading}: {_shares(mask, names) or 'background only'}")

    def errors(self, heading: str, mask: Labels) -> Panel:
        """Where a mask differs from the ground truth, which there must be."""
        assert self.truth is not None
        kinds = error_kinds(self.truth, mask)
        names = dict(enumerate(ERRORS, start=1))
        painted = paint_errors(self.small, resize_labels(kinds, self.size))
        return self._panel(heading, painted, f"{heading}: {_shares(kinds, names)}")

    def _panel(self, heading: str, picture: Rgb, alt: str) -> Panel:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=80)
        return Panel(heading, f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}", alt)


def error_kinds(truth: Labels, prediction: Labels) -> NDArray[np.uint8]:
    """What is wrong where.

    Args:
        truth: (H, W) labels, 255 ignored.
        prediction: (H, W) labels, 255 no decision.

    Returns:
        (H, W) uint8: 0 right, else 1 + the position in ERRORS. *false negative*: an object's pixel called background
        or left undecided; *false positive*: background given a class (or left undecided); *wrong class*: one class
        called another; *ignored*: in the ground truth.
    """
    wrong, decided = truth != prediction, (prediction > 0) & (prediction != IGNORE)
    kinds = np.zeros(truth.shape, np.uint8)
    kinds[wrong & (truth > 0)] = np.where(decided, 3, 1)[wrong & (truth > 0)]
    kinds[wrong & (truth == 0)] = 2
    kinds[truth == IGNORE] = 4
    return kinds


def paint_errors(image: Rgb, kinds: NDArray[np.uint8]) -> Rgb:
    """(H, W, 3) and (H, W) of `error_kinds` -> the grey image, with its errors in their colours."""
    grey = darkened(image, 0.45).round().astype(np.uint8)
    colours = np.array([(0, 0, 0), *ERRORS.values()], np.uint8)
    return np.where(kinds[..., None] > 0, colours[kinds], grey[..., None])


def refresh_overview(session: Session, fresh: Sequence[str]) -> None:
    """Write overview.png where a stage is new or it is not there: training images with all that was made of them."""
    if not fresh and session.run.overview.exists():
        return
    train = session.dataset.split(session.config.data.train_split)
    seed, refined, segmented = (_opened(session.planned, stage) for stage in MASKS)
    rows, shown = [], set()
    for sample in overview_samples(train):
        image, cams = read_image(sample.image), None
        if seed:
            labels = seed.read(sample.id, "classes").astype(int) + 1
            cams = paint_cams(image, resize_maps(seed.read(sample.id, "maps"), sample.size), labels)
            shown |= set(labels.tolist())
        masks = [
            artifact.read(sample.id, name) if artifact and sample.id in artifact else None
            for artifact, name in ((refined, "masks"), (segmented, "predictions"))
        ]
        masks.append(sample.mask.read() if sample.mask else None)
        shown |= {label for mask in masks if mask is not None for label in np.unique(mask).tolist()}
        painted = [None if mask is None else paint_labels(image, mask) for mask in masks]
        tags = ", ".join(train.classes[tag] for tag in sample.tags) or "no tags"
        rows.append((f"{sample.id}: {tags}", [image, cams, *painted]))
    names = legend(sorted(shown), train.classes, "uncertain / ignored")
    with atomic_path(session.run.overview) as temporary:
        headings = ("image", "CAM", "pseudo-mask", "prediction", "ground truth")
        draw_grid(headings, rows, names).save(temporary, format="PNG", optimize=True)
    for opened in filter(None, (seed, refined, segmented)):
        opened.close()


def _opened(planned: Mapping[str, Planned], stage: str) -> Artifact | None:
    """A stage's artifact, None where it is not computed."""
    return Artifact(planned[stage].path) if stage in planned and planned[stage].cached else None


def _shares(labels: NDArray[np.uint8], names: Mapping[int, str]) -> str:
    """The named labels with their share of the pixels."""
    shares = 100 * label_pixels(labels) / labels.size
    return ", ".join(f"{name} {shares[label]:.0f} %" for label, name in names.items())
