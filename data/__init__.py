"""Data sets: from files on disk to checked samples.

`open_dataset` reads the listing and checks every file once; what it returns can be trusted afterwards.
`data.images` reads the pixels. Nothing here imports torch, so the command line starts at once.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from data.index import index_files
from data.masks import Facts, Mask
from data.sources import Entry, read_listing
from wsss.config import DataConfig
from wsss.errors import UserError, listed

__all__ = ["Dataset", "Sample", "open_dataset"]

_IGNORED = 255


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
    samples: tuple[Sample, ...]
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

    def digest(self, *, masks: bool) -> str:
        """Return the sha256 (hexadecimal) of what the data set says, wherever it lies on disk.

        It covers the classes and, per sample, id, tags, split and the image's bytes; with ``masks`` also
        the bytes of its mask.
        """
        samples = [
            [
                sample.id,
                sample.tags,
                sample.split,
                sample.image_digest,
                *([sample.mask_digest] if masks else []),
            ]
            for sample in self.samples
        ]
        text = json.dumps([self.classes, samples], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def open_dataset(config: DataConfig, *, cache: Path | None = None, progress: bool = False) -> Dataset:
    """Read the listing and check every file, so that nothing fails later for the data's sake.

    Args:
        config: where the data set lies and how it is laid out.
        cache: JSON file that remembers the checked files of this data set; unchanged ones are not read again.
        progress: show a bar while files are decoded.

    Returns:
        The samples of the training and the validation split.

    Raises:
        UserError: the listing, a tag, an image or a mask cannot be used; it says where, why and what to do.
    """
    listing = read_listing(config)
    images = [entry.image for entry in listing.entries]
    masks = [entry.mask for entry in listing.entries if entry.mask]
    facts = index_files(images, masks, root=listing.root, cache=cache, progress=progress)
    _check_masks(listing.entries, facts, len(listing.classes))
    samples = tuple(_sample(entry, facts) for entry in listing.entries)
    return Dataset(classes=listing.classes, samples=samples, notes=listing.notes)


def _sample(entry: Entry, facts: Mapping[Path | Mask, Facts]) -> Sample:
    image = facts[entry.image]
    return Sample(
        id=entry.id,
        image=entry.image,
        tags=entry.tags,
        split=entry.split,
        mask=entry.mask,
        size=image.size,
        image_digest=image.digest,
        mask_digest=facts[entry.mask].digest if entry.mask else None,
    )


def _check_masks(entries: tuple[Entry, ...], facts: Mapping[Path | Mask, Facts], C: int) -> None:
    problems = [
        f"{entry.mask} {problem}"
        for entry in entries
        if entry.mask
        for problem in _mask_problems(facts[entry.image], facts[entry.mask], C)
    ]
    if problems:
        raise UserError(
            f"{len(problems)} mask(s) do not fit:\n{listed(problems)}.\n"
            f"Expected the image's size and labels 0..{C} or {_IGNORED}: correct the masks or the classes."
        )


def _mask_problems(image: Facts, mask: Facts, C: int) -> Iterator[str]:
    if mask.size != image.size:
        turned = mask.size == image.size[::-1]
        hint = (
            " (the photograph has an EXIF rotation that the mask does not follow: rotate the mask)"
            if turned
            else ""
        )
        yield f"is {_size(mask)}, its image {_size(image)}{hint}"
    beyond = [str(label) for label in mask.labels if C < label != _IGNORED]
    if beyond:
        yield f"has labels beyond the {C} classes: {listed(beyond, ', ')}"


def _size(facts: Facts) -> str:
    H, W = facts.size
    return f"{W}x{H} (width x height)"
