"""Data sets: from files on disk to checked samples.

A source (`data.sources`) says what is listed, a `Listing` of entries; `open_dataset` checks every file once and
returns a `Dataset` of samples, which can be trusted afterwards. `data.images` reads the pixels. Nothing here imports
torch, so the command line starts at once.
"""

import hashlib
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data.cache import Memory, check_files, stamps_of
from data.images import UInt8
from data.masks import Facts, Mask, PngMask
from data.sources import read_listing
from data.sources.listing import Listing, refuse_images
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import MaskError, UserError, listed, listing_error, plural


class Drawn(msgspec.Struct, frozen=True, gc=False):
    """A mask that lies beside the data set, and the sha256 of what it is read from."""

    mask: Mask
    digest: str


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One image with what is known about it.

    Attributes:
        id: the image's path relative to the images folder, without its extension, ``/`` between folders.
        path: of the image's file.
        tags: sorted class indices 0..C-1; empty for an image that shows background only.
        split: name of its split.
        mask: where its labels (0: background, c + 1: class c, 255: ignored) are read from, None for none.
        size: ``(H, W)`` of the upright image.
        image_digest: sha256 of the image file's bytes, hexadecimal.
        mask_digest: the same of what the mask is read from.
        labels: the sorted values of the mask.
        correction: what somebody has corrected (255: nothing said), where anything.
        imported: another program's mask.
    """

    id: str
    path: str
    tags: tuple[int, ...]
    split: str
    mask: Mask | None
    size: tuple[int, int]
    image_digest: str
    mask_digest: str | None
    labels: tuple[int, ...] = ()
    correction: Drawn | None = None
    imported: Drawn | None = None

    @property
    def image(self) -> Path:
        """The image's file."""
        return Path(self.path)

    def corrected(self, labels: UInt8) -> UInt8:
        """Labels (H, W) of this image, replaced where somebody has said what is right."""
        if self.correction is None:
            return labels
        said = self.correction.mask.read()
        return np.where(said == IGNORE, labels, said)


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

    def weak(self, *, corrections: bool = False, imported: bool = False) -> "Dataset":
        """Return the same data set without any mask: what weak stages may see, or with what is named."""
        dropped: dict[str, Any] = {"mask": None, "mask_digest": None, "labels": ()}
        dropped |= {} if corrections else {"correction": None}
        dropped |= {} if imported else {"imported": None}
        return replace(self, samples=tuple(msgspec.structs.replace(s, **dropped) for s in self.samples))

    def joined(self, other: "Dataset") -> "Dataset":
        """Return the samples of this view of a data set, then those of another view of it."""
        return replace(self, samples=(*self.samples, *other.samples))

    def digest(self, *, masks: bool) -> str:
        """Return the sha256 (hexadecimal) of what the data set says, wherever it lies on disk.

        It covers the classes and, per sample, id, tags, split and the image's bytes; with ``masks`` also
        the bytes of its masks.
        """
        samples = [
            (s.id, s.tags, s.split, s.image_digest, *((s.mask_digest, *_drawn(s)) if masks else ()))
            for s in self.samples
        ]
        return hashlib.sha256(msgspec.json.encode((self.classes, samples))).hexdigest()

    def mask_digests(self) -> list[list[str | None]]:
        """Return each sample's id and its mask's digest, None for none."""
        return [[sample.id, sample.mask_digest] for sample in self.samples]


def _drawn(sample: Sample) -> Iterator[tuple[str, str]]:
    """What a digest says of masks beside the data set: nothing where there is none."""
    for name in ("correction", "imported"):
        if found := getattr(sample, name):
            yield name, found.digest


def open_dataset(
    config: DataConfig,
    *,
    imported: str = "",
    cache: Path | None = None,
    writable: bool = True,
    progress: bool = False,
) -> Dataset:
    """Read the listing and check every file, so that nothing fails later for the data's sake.

    Args:
        config: where the data set lies and how it is laid out.
        imported: folder of another program's masks of the training images.
        cache: JSON file that remembers the checked files of this data set; unchanged ones are not read again.
        writable: whether it may be written.
        progress: show a bar while files are decoded.

    Returns:
        The samples of the training and the validation split.

    Raises:
        UserError: the listing, a tag, an image or a mask cannot be used; it says where, why and what to do.
    """
    memory = Memory(cache, writable) if cache else None
    listing = read_listing(config, memory)
    entries = listing.entries
    paths = [f"{listing.images}/{entry.image}" for entry in entries]
    items: list[str | Mask] = [*paths, *(entry.mask for entry in entries if entry.mask)]
    stamps = stamps_of(items)
    missing = [entry for entry, stamp in zip(entries, stamps, strict=False) if stamp is None]
    refuse_images(listing, [f"{entry.where} {entry.image!r} does not exist" for entry in missing])
    facts = check_files(items, stamps, memory=memory, progress=progress)
    rest = iter(facts[len(paths) :])
    masks = [next(rest) if entry.mask else None for entry in entries]
    _check_masks(listing, facts, masks)
    index = {name: position for position, name in enumerate(listing.classes)}
    tags = {
        names: tuple(sorted(index[name] for name in names)) for names in {entry.tags for entry in entries}
    }
    samples = [
        Sample(
            id=entry.id,
            path=path,
            tags=tags[entry.tags],
            split=entry.split,
            mask=entry.mask,
            size=image.size,
            image_digest=image.digest,
            mask_digest=mask.digest if mask else None,
            labels=mask.labels if mask else (),
        )
        for entry, path, image, mask in zip(entries, paths, facts, masks, strict=False)
    ]
    dataset = Dataset(classes=listing.classes, samples=tuple(samples), notes=listing.notes)
    corrections = Path(config.root) / config.corrections if config.corrections else None
    for kind, folder in (("correction", corrections), ("imported", Path(imported) if imported else None)):
        if folder:
            dataset = _with_drawn(dataset, folder, kind, config.train_split, memory, progress=progress)
    return dataset


KEYS = {"correction": "data.corrections", "imported": "refine.masks"}
"""Where the folders of masks beside the data set are named."""


def _with_drawn(
    dataset: Dataset, folder: Path, kind: str, train: str, memory: Memory | None, *, progress: bool
) -> Dataset:
    """Give the training images the masks of a folder, NAME.png each; a mask that says nothing is none."""
    if not folder.is_dir():
        raise UserError(f"{KEYS[kind]}: {folder} is no folder; expected PNG files named by image")
    normal = partial(unicodedata.normalize, "NFC")
    files = {
        normal(path.relative_to(folder).with_suffix("").as_posix()): path for path in folder.rglob("*.png")
    }
    known = {normal(sample.id): sample for sample in dataset.samples if sample.split == train}
    used = [(known[name], PngMask(path)) for name, path in sorted(files.items()) if name in known]
    if not used:
        raise UserError(
            f"{KEYS[kind]}: no PNG in {folder} is named by a training image ({len(files)} are there); expected "
            f"{next(iter(known))}.png, and so on"
        )
    masks = [mask for _, mask in used]
    facts = check_files(masks, stamps_of(masks), memory=memory, progress=progress)
    problems = [
        f"{mask} {problem}"
        for (sample, mask), found in zip(used, facts, strict=True)
        for problem in _mask_problems(sample.size, found, len(dataset.classes))
    ]
    _refuse(problems, len(dataset.classes))
    drawn = {
        sample.id: Drawn(mask, found.digest)
        for (sample, mask), found in zip(used, facts, strict=True)
        if found.labels != (IGNORE,)
    }
    untagged = sum(
        not {label - 1 for label in found.labels if label not in (0, IGNORE)} <= set(sample.tags)
        for (sample, _), found in zip(used, facts, strict=True)
    )
    notes = [f"{KEYS[kind]}: {len(drawn)} of {len(known)} training images"]
    if untagged:
        notes.append(f"{KEYS[kind]}: {plural(untagged, 'image')} with classes beside the tags")
    if len(files) > len(used):
        others = listed(sorted(set(files) - set(known)), ", ")
        notes.append(f"{KEYS[kind]}: not used, since no training image has such a name: {others}")
    return replace(
        dataset,
        samples=tuple(msgspec.structs.replace(s, **{kind: drawn.get(s.id)}) for s in dataset.samples),
        notes=(*dataset.notes, *notes),
    )


def _check_masks(listing: Listing, images: Sequence[Facts], masks: Sequence[Facts | None]) -> None:
    C = len(listing.classes)
    problems = [
        f"{entry.mask} {problem}"
        for entry, image, mask in zip(listing.entries, images, masks, strict=False)
        if mask
        for problem in _mask_problems(image.size, mask, C)
    ]
    _refuse(problems, C)


def _refuse(problems: Sequence[str], C: int) -> None:
    if problems:
        raise listing_error(
            f"{len(problems)} mask(s) do not fit",
            problems,
            f"Expected the image's size and labels 0..{C} or {IGNORE}: correct the masks, name all classes in "
            "the order of the labels (classes.txt), or work without masks (init --masks none, or data.masks = '').",
            kind=MaskError,
        )


def _mask_problems(image: tuple[int, int], mask: Facts, C: int) -> Iterator[str]:
    if mask.size != image:
        (H, W), (image_H, image_W) = mask.size, image
        turned = " (made without the image's EXIF rotation: remove the orientation from the image's EXIF)"
        hint = turned if image == (W, H) else ""
        yield f"is {W}x{H} (width x height), its image {image_W}x{image_H} (width x height){hint}"
    beyond = [str(label) for label in mask.labels if C < label != IGNORE]
    if beyond:
        yield f"has labels beyond the {C} classes: {listed(beyond, ', ')}"


ROWS = 8


def overview_samples(dataset: Dataset, rows: int = ROWS) -> tuple[Sample, ...]:
    """Up to ``rows`` tagged samples: the classes in turn, each with its next image; none twice."""
    queues: list[list[Sample]] = [[] for _ in dataset.classes]
    for sample in dataset.samples:
        for tag in sample.tags:
            if len(queues[tag]) < rows:
                queues[tag].append(sample)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return tuple(dict.fromkeys(sample for sample in turns if sample))[:rows]
