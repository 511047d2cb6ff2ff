"""A data set: classes and checked samples, views of it, and the samples that stand for it in pictures."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.masks import Mask


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with what is known about it.

    Attributes:
        id: the image's path relative to the images folder, without its extension, ``/`` between folders.
        image: the photograph.
        tags: sorted class indices 0..C-1; empty for an image that shows background only.
        split: name of its split.
        mask: where its labels (0: background, c + 1: class c, 255: ignored) are read from, None for none.
        size: ``(H, W)`` of the upright photograph.
        image_digest: sha256 of the photograph's bytes, hexadecimal.
        mask_digest: the same of what the mask is read from.
    """

    id: str
    image: Path
    tags: tuple[int, ...]
    split: str
    mask: Mask | None
    size: tuple[int, int]
    image_digest: str
    mask_digest: str | None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Checked samples, sorted by id.

    Attributes:
        classes: C names; class c has the tag index c and the mask value c + 1.
        samples: the images of the training and the validation split.
        notes: what the user should know, a sentence each.
    """

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def split(self, name: str) -> "Dataset":
        """Return the samples of one split only; none where no sample has it."""
        return replace(self, samples=tuple(sample for sample in self.samples if sample.split == name))

    def weak(self) -> "Dataset":
        """Return the same data set without any mask: all that a weakly supervised stage may see."""
        return replace(
            self, samples=tuple(replace(sample, mask=None, mask_digest=None) for sample in self.samples)
        )

    def joined(self, other: "Dataset") -> "Dataset":
        """Return the samples of this view of a data set, then those of another view of it."""
        return replace(self, samples=(*self.samples, *other.samples))

    def digest(self, *, masks: bool) -> str:
        """Return the sha256 (hexadecimal) of what the data set says, wherever it lies on disk.

        It covers the classes and, per sample, id, tags, split and the image's bytes; with ``masks`` also
        the bytes of its mask.
        """
        samples = [
            (s.id, s.tags, s.split, s.image_digest, *((s.mask_digest,) if masks else ()))
            for s in self.samples
        ]
        text = json.dumps([self.classes, samples], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def mask_digests(self) -> list[list[str | None]]:
        """Return each sample's id and its mask's digest, None for none."""
        return [[sample.id, sample.mask_digest] for sample in self.samples]


ROWS = 8


def overview_samples(dataset: Dataset, rows: int = ROWS) -> tuple[Sample, ...]:
    """Up to ``rows`` tagged samples: the classes in turn, each with its next image not shown yet."""
    chosen: dict[str, Sample] = {}
    queues: list[list[Sample]] = [[] for _ in dataset.classes]
    for sample in dataset.samples:
        for tag in sample.tags:
            if len(queues[tag]) < rows:  # one of them is not shown yet as long as there is a row to fill
                queues[tag].append(sample)
    while len(chosen) < rows and any(queues):
        for queue in queues:
            while queue and queue[0].id in chosen:
                queue.pop(0)
            if queue and len(chosen) < rows:
                sample = queue.pop(0)
                chosen[sample.id] = sample
    return tuple(chosen.values())
