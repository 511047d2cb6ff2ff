"""What is measured about images, chunk by chunk, in worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from wsss.metrics import (
    THRESHOLDS,
    Counts,
    SeedCounts,
    confusion_counts,
    label_pixels,
    reaching,
    seed_labels,
    strongest_labels,
)
from wsss.metrics.indicators import (
    agreement,
    colour_information,
    edge_alignment,
    gradient_ranks,
)
from wsss.metrics.tally import Tally
from wsss.resize import resize_maps
from wsss.store.artifacts import Artifact

NAMED = 0.005
"""A prediction names a class where it covers at least this share of the image."""
CURVES = ("mirror_agreement", "scale_agreement", "colour_information")
"""Indicators of the seed at every threshold."""

Mask = NDArray[np.uint8]


@dataclass
class Chunk:
    """What was found in some images; chunks of different images are joined by `merge`.

    Attributes:
        tally: counts against truth, of the images that have one.
        sure: confusion of the masks with their unsure pixels (refine only).
        sweep: the seed at every threshold (cams only).
        tags: (C, 4) int64 by class: images tagged; of them with a pixel of the class; pixels of the class in them;
            pixels of them.
        named: (C, 3) int64 by class: images tagged and named by the prediction; tagged; named (segment only).
        exits: (E, L, L + 1) confusion of what each shallower exit says (segment only).
        curves: by indicator (2, T): sums over the images where it is defined, and their number (cams only).
        indicators: by name, a value per image; NaN where undefined.
        ids: of the images, in order.
    """

    tally: Tally
    sure: Counts
    sweep: SeedCounts
    tags: Counts
    named: Counts
    exits: Counts
    curves: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    indicators: dict[str, list[float]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, labels: int, exits: int = 0) -> "Chunk":
        """Nothing found yet, L labels, E shallower exits."""
        return cls(
            Tally.empty(labels),
            np.zeros((labels, labels + 1), np.int64),
            SeedCounts(labels),
            np.zeros((labels - 1, 4), np.int64),
            np.zeros((labels - 1, 3), np.int64),
            np.zeros((exits, labels, labels + 1), np.int64),
        )

    def merge(self, other: "Chunk") -> None:
        """Add what was found in other, later images."""
        self.tally.merge(other.tally)
        self.sure += other.sure
        self.sweep.merge(other.sweep)
        self.tags += other.tags
        self.named += other.named
        self.exits += other.exits
        for name, sums in other.curves.items():
            self.curves[name] = self.curves[name] + sums if name in self.curves else sums
        for name, found in other.indicators.items():
            self.indicators.setdefault(name, []).extend(found)
        self.ids += other.ids


@dataclass(frozen=True)
class Measurer:
    """Measures the images of one stage's artifact; pickled to worker processes.

    Attributes:
        stage: cams, refine or segment.
        artifact: of the stage.
        cams: the seed that refine started from.
        labels: L.
        background: the seed's threshold, see `stages.refine`.
        exits: E, shallower exits whose predictions the artifact has (segment only).
    """

    stage: str
    artifact: Artifact
    cams: Artifact | None
    labels: int
    background: float
    exits: int = 0

    def __call__(self, samples: Sequence[Sample]) -> Chunk:
        """Measure some images."""
        chunk = Chunk.empty(self.labels, self.exits)
        measure = {"cams": self._seed, "refine": self._pseudo, "segment": self._prediction}[self.stage]
        for sample in samples:
            image = read_image(sample.image)
            truth = sample.mask.read() if sample.mask else None
            mask, found = measure(chunk, sample, image, truth)
            if truth is not None:
                chunk.tally.merge(Tally.of(sample.id, truth, mask, self.labels))
            found["edge_alignment"] = edge_alignment(gradient_ranks(image), mask)
            _count_tags(chunk.tags, sample, mask, found)
            chunk.ids.append(sample.id)
            for name, value in found.items():
                chunk.indicators.setdefault(name, []).append(value)
        return chunk

    def _seed(
        self, chunk: Chunk, sample: Sample, image: Mask, truth: Mask | None
    ) -> tuple[Mask, dict[str, float]]:
        maps = self.artifact.read(sample.id, "maps")
        classes = self.artifact.read(sample.id, "classes")
        cams = resize_maps(maps, (image.shape[0], image.shape[1]))
        label, value = strongest_labels(cams, classes)
        if truth is not None:
            chunk.sweep.add(truth, label, value)
        curves = [
            *self.artifact.read(sample.id, "agreement"),
            self.artifact.read(sample.id, "colour_information"),
        ]
        nearest = int(np.abs(np.asarray(THRESHOLDS) - self.background).argmin())
        found = {}
        for name, curve in zip(CURVES, curves, strict=True):
            _add_curve(chunk.curves, name, np.asarray(curve, np.float64))
            found[name] = float(curve[nearest])
        found |= _confidence(self.artifact.read(sample.id, "confidence"), sample.tags)
        return reaching(label, value, self.background), found

    def _pseudo(
        self, chunk: Chunk, sample: Sample, image: Mask, truth: Mask | None
    ) -> tuple[Mask, dict[str, float]]:
        labels = self.artifact.read(sample.id, "labels")
        masks = self.artifact.read(sample.id, "masks")
        if truth is not None:
            chunk.sure += confusion_counts(truth, masks, self.labels)
        found = {
            "unsure": np.count_nonzero(masks == 255) / masks.size,
            "colour_information": colour_information(image, labels),
        }
        if self.cams is not None:
            cams = resize_maps(self.cams.read(sample.id, "maps"), (image.shape[0], image.shape[1]))
            seed = seed_labels(cams, self.cams.read(sample.id, "classes"), self.background)
            found["cam_agreement"] = agreement(seed, labels)
        return labels, found

    def _prediction(
        self, chunk: Chunk, sample: Sample, image: Mask, truth: Mask | None
    ) -> tuple[Mask, dict[str, float]]:
        labels = self.artifact.read(sample.id, "predictions")
        if truth is not None and self.exits:
            each = self.artifact.read(sample.id, "exit_predictions")
            chunk.exits += np.stack([confusion_counts(truth, single, self.labels) for single in each])
        shares = label_pixels(labels)[1 : self.labels] / labels.size
        named = shares >= NAMED
        tagged = np.zeros(self.labels - 1, bool)
        tagged[list(sample.tags)] = True
        chunk.named += np.stack([named & tagged, tagged, named], axis=1)
        union = int((named | tagged).sum())
        return labels, {
            "colour_information": colour_information(image, labels),
            "tags_named": float((named & tagged).sum() / union) if union else 1.0,
        }


def _add_curve(curves: dict[str, NDArray[np.float64]], name: str, curve: NDArray[np.float64]) -> None:
    known = np.isfinite(curve)
    sums = np.stack([np.where(known, curve, 0.0), known.astype(np.float64)])
    curves[name] = curves[name] + sums if name in curves else sums


def _confidence(probability: NDArray[np.floating], tags: tuple[int, ...]) -> dict[str, float]:
    """The classifier's mean probability of the tags, and its largest of a class that is not tagged."""
    values = probability.astype(np.float64)
    others = np.delete(values, list(tags))
    return {
        "confidence": float(values[list(tags)].mean()) if tags else float("nan"),
        "untagged_confidence": float(others.max()) if len(others) else float("nan"),
    }


def _count_tags(counts: Counts, sample: Sample, mask: Mask, found: dict[str, float]) -> None:
    pixels = label_pixels(mask)
    covered = [int(pixels[tag + 1] > 0) for tag in sample.tags]
    for tag, has_pixel in zip(sample.tags, covered, strict=True):
        counts[tag] += (1, has_pixel, pixels[tag + 1], mask.size)
    found["covered"] = float(np.mean(covered)) if covered else float("nan")
