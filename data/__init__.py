"""Data sets: from files on disk to checked samples.

`open_dataset` reads the listing and checks every file once; what it returns can be trusted afterwards.
`data.images` reads the pixels. Nothing here imports torch, so the command line starts at once.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from data.cache import index_files
from data.dataset import Dataset, Sample
from data.masks import Facts, Mask
from data.sources import Entry, Listing, read_listing
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError, listed

__all__ = ["Dataset", "Sample", "open_dataset"]


def open_dataset(
    config: DataConfig,
    *,
    cache: Path | None = None,
    writable: bool = True,
    progress: bool = False,
) -> Dataset:
    """Read the listing and check every file, so that nothing fails later for the data's sake.

    Args:
        config: where the data set lies and how it is laid out.
        cache: JSON file that remembers the checked files of this data set; unchanged ones are not read again.
        writable: whether it may be written.
        progress: show a bar while files are decoded.

    Returns:
        The samples of the training and the validation split.

    Raises:
        UserError: the listing, a tag, an image or a mask cannot be used; it says where, why and what to do.
    """
    return _checked(read_listing(config), cache, writable=writable, progress=progress)


def _checked(listing: Listing, cache: Path | None, *, writable: bool, progress: bool) -> Dataset:
    """Check every file of a listing."""
    images = [entry.image for entry in listing.entries]
    masks = [entry.mask for entry in listing.entries if entry.mask]
    facts = index_files(images, masks, root=listing.root, cache=cache, writable=writable, progress=progress)
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
            f"Expected the image's size and labels 0..{C} or {IGNORE}: correct the masks or the classes."
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
    beyond = [str(label) for label in mask.labels if C < label != IGNORE]
    if beyond:
        yield f"has labels beyond the {C} classes: {listed(beyond, ', ')}"


def _size(facts: Facts) -> str:
    H, W = facts.size
    return f"{W}x{H} (width x height)"
