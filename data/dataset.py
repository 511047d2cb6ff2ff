"""A data set: classes and checked samples, and views of it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data.columns import ColumnSamples, identities
from data.samples import Sample


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
        if isinstance(self.samples, ColumnSamples):
            return replace(self, samples=self.samples.of_split(name))
        return replace(self, samples=tuple(sample for sample in self.samples if sample.split == name))

    def weak(self) -> "Dataset":
        """Return the same data set without any mask: all that a weakly supervised stage may see."""
        if isinstance(self.samples, ColumnSamples):
            return replace(self, samples=self.samples.weak())
        return replace(
            self, samples=tuple(replace(sample, mask=None, mask_digest=None) for sample in self.samples)
        )

    def joined(self, other: "Dataset") -> "Dataset":
        """Return the samples of this view of a data set, then those of another view of it."""
        first, second = self.samples, other.samples
        if isinstance(first, ColumnSamples) and isinstance(second, ColumnSamples):
            return replace(self, samples=first.joined(second))
        return replace(self, samples=(*first, *second))

    def digest(self, *, masks: bool) -> str:
        """Return the sha256 (hexadecimal) of what the data set says, wherever it lies on disk.

        It covers the classes and, per sample, id, tags, split and the image's bytes; with ``masks`` also
        the bytes of its mask.
        """
        samples = [row if masks else row[:-1] for row in identities(self.samples)]
        text = json.dumps([self.classes, samples], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def mask_digests(self) -> list[list[str | None]]:
        """Return each sample's id and its mask's digest, None for none."""
        return [[row[0], row[-1]] for row in identities(self.samples)]
