"""What a data set is like, and what about it will be a problem: class counts, tags that teach little, duplicates."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data import Dataset, Sample
from data.images import heif_is_readable
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import listed, plural
from wsss.runtime.pool import in_order

Hashes = NDArray[np.uint64]

RARE = 10
"""Fewer training images of a class than this are called rare."""

TINY = 64
"""Images whose short side has fewer pixels than this are called tiny."""

COMPARED = 20_000
"""Images of both splits up to which near-duplicates are looked for unasked."""

_EVERYWHERE = 0.95  # share of the training images
_SIDE = 9  # of the thumbnail that is hashed
_FLAT = 3.0  # gray levels of deviation below which a hash says nothing: a blank page resembles every other
_NEAR = 10  # of 128 bits: copies resized to two thirds or compressed again were seen to differ in up to 8
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class SplitSurvey:
    """Counts of one split.

    Attributes:
        name: of the split.
        images: their number.
        masks: how many have a mask.
        untagged: how many have no tag.
        per_class: images of each of the C classes.
    """

    name: str
    images: int
    masks: int
    untagged: int
    per_class: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The whole data set.

    Attributes:
        classes: C names.
        splits: training, validation.
        short_side: smallest, median and largest short side in pixels.
        long_side: the same of the long side.
        problems: what will make results worse, a sentence or two each.
    """

    classes: tuple[str, ...]
    splits: tuple[SplitSurvey, SplitSurvey]
    short_side: tuple[int, int, int]
    long_side: tuple[int, int, int]
    problems: tuple[str, ...]


def survey(
    dataset: Dataset,
    config: DataConfig,
    *,
    full: bool = False,
    duplicates: bool = False,
    progress: bool = False,
) -> Survey:
    """Count, and look for problems.

    Args:
        dataset: opened and checked.
        config: its configuration.
        full: masks are learned from, so that tags need not tell the classes apart.
        duplicates: look for near-duplicates in however many images; otherwise in up to `COMPARED`.
        progress: show a bar while images are compared.
    """
    training = dataset.split(config.train_split)
    validation = dataset.split(config.val_split)
    sides = np.sort(np.array([sample.size for sample in dataset.samples]), axis=1)
    problems = [
        *class_problems(training, full=full),
        *_validation_problems(training, validation),
        *_mask_problems(dataset),
        *_file_problems(dataset.samples, Path(config.root)),
        *_same_bytes(dataset.samples, config.train_split),
    ]
    if len(validation) and not duplicates and len(dataset) > COMPARED:
        problems.append("near-duplicates were not looked for in so many images: --duplicates does")
    elif len(validation):
        problems += _near_duplicates(training.samples, validation.samples, progress)
    return Survey(
        classes=dataset.classes,
        splits=(_counts(training, config.train_split), _counts(validation, config.val_split)),
        short_side=_spread(sides[:, 0]),
        long_side=_spread(sides[:, 1]),
        problems=tuple(problems),
    )


def _counts(dataset: Dataset, name: str) -> SplitSurvey:
    return SplitSurvey(
        name=name,
        images=len(dataset),
        masks=sum(sample.mask is not None for sample in dataset.samples),
        untagged=sum(not sample.tags for sample in dataset.samples),
        per_class=tuple(_tag_matrix(dataset).sum(axis=0).tolist()),
    )


def _spread(values: NDArray[np.int64]) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _tag_matrix(dataset: Dataset) -> NDArray[np.int64]:
    """int64 ``(n, C)`` of 0 and 1."""
    matrix = np.zeros((len(dataset), len(dataset.classes)), np.int64)
    for row, sample in enumerate(dataset.samples):
        matrix[row, list(sample.tags)] = 1
    return matrix


def class_problems(training: Dataset, *, full: bool) -> Iterator[str]:
    """Classes that are rare, and tags from which one cannot learn where their class is."""
    names, tags = training.classes, _tag_matrix(training)
    together = tags.T @ tags
    alone = together.diagonal()
    rare = [f"{names[c]} ({alone[c]})" for c in np.argsort(alone, kind="stable") if 0 < alone[c] < RARE]
    if rare:
        yield (
            f"rare: {len(rare)} {'class' if len(rare) == 1 else 'classes'} with fewer than {RARE} training images: "
            f"{listed(rare, ', ')}. Their masks will be poor: add images of them"
        )
    if full:
        return
    same = [name for name, count in zip(names, alone, strict=True) if count > _EVERYWHERE * len(training)]
    if same and len(training) >= RARE:
        yield (
            f"everywhere: {listed(same, ', ')} in nearly every training image. Where it is cannot be learned from tags "
            "that never change: add images without it, with empty tags where they show nothing else"
        )
    inside = (together == alone[:, None]) & (alone > 0)[:, None]  # [a, b]: wherever a is, b is too
    groups = {tuple(np.flatnonzero(row).tolist()) for row in inside & inside.T}
    always = [" = ".join(names[c] for c in group) for group in sorted(groups) if len(group) > 1]
    if always:
        yield (
            f"inseparable: always together in training: {listed(always)}. Tags cannot tell them apart: merge them, or "
            "add images that show one alone"
        )
    pairs = np.argwhere(inside).tolist()
    never_alone = [f"{names[a]} (with {names[b]})" for a, b in pairs if 1 < alone[a] < alone[b]]
    if never_alone:
        yield (
            f"never alone: {listed(never_alone, ', ')}. Their masks may spread over the other class: add images that "
            "show them without it"
        )


def _validation_problems(training: Dataset, validation: Dataset) -> Iterator[str]:
    """What cannot be scored."""
    absent = np.flatnonzero(_tag_matrix(validation).sum(axis=0) == 0)
    if not len(validation):
        yield "no validation images: nothing will be predicted and scored that was not learned from"
    elif len(absent) and any(sample.tags for sample in validation.samples):
        names = listed([training.classes[c] for c in absent], ", ")
        yield f"not validated: no validation image of {names}: no score for them"
    learned = any(sample.mask for sample in training.samples)
    held_out = any(sample.mask for sample in validation.samples)
    if not learned and not held_out:
        yield "no masks: results can be looked at, not scored"
    elif not learned:
        yield "no masks of training images: CAMs and pseudo-masks can be looked at, not scored"
    elif len(validation) and not held_out:
        yield "no masks of validation images: predictions can be looked at, not scored"


def _mask_problems(dataset: Dataset) -> Iterator[str]:
    """Masks whose labels are not their images' tags, and why that may be."""
    pairs = [
        (
            {tag + 1 for tag in s.tags},
            {label for label in s.labels if label != IGNORE},
            IGNORE in s.labels,
            s.id,
        )
        for s in dataset.samples
        if s.mask
    ]
    wrong = [(tags, labels - {0}, ignored) for tags, labels, ignored, _ in pairs if labels - {0} != tags]
    if not wrong:
        return
    first = next(name for tags, labels, _, name in pairs if labels - {0} != tags)
    names = dict(enumerate(dataset.classes, start=1))
    tags, shown = (", ".join(names[label] for label in sorted(part)) or "none" for part in wrong[0][:2])
    yield (
        f"masks are not the tags: {len(wrong)} of {plural(len(pairs), 'mask')} show other classes than their image is "
        f"tagged with ({first}: tags {tags}; mask {shown}). {_reason(pairs, len(wrong), names)}"
    )


_Pair = tuple[set[int], set[int], bool, str]


def _reason(pairs: Sequence[_Pair], wrong: int, names: Mapping[int, str]) -> str:
    """What would explain most of the masks that contradict their tags."""
    tagged = [pair for pair in pairs if pair[0]]
    most = len(tagged) / 2
    if sum(ignored and not labels - {0} for _, labels, ignored, _ in tagged) > most:
        return "Likely 255 is the object there, and is read as 'ignored': write the class's number, 1 for the first"
    if (
        sum({label + 1 for label in labels if label < len(names)} == tags for tags, labels, *_ in tagged)
        > most
    ):
        return (
            "Likely labels start at 0 there, without a background: add 1 to each, and write 0 for background"
        )
    order = {label: _best_tag(label, tagged) for label in names}
    moved = {label: tag for label, tag in order.items() if tag not in (0, label)}
    explained = sum({order.get(label, 0) for label in labels - {0}} == tags for tags, labels, *_ in tagged)
    if moved and explained > max(most, len(pairs) - wrong):
        told = listed([f"{label} is {names[tag]}" for label, tag in moved.items()], ", ")
        return f"Likely another order of classes: {told}. Write classes.txt in the order of the masks' labels"
    return "Scores count the masks: correct tags or masks, or set data.masks = ''"


def _best_tag(label: int, pairs: Sequence[_Pair]) -> int:
    """The tag whose images are most nearly those of a label (largest intersection over union); 0 for none."""
    shown = {name for _, labels, _, name in pairs if label in labels}
    tagged: dict[int, set[str]] = defaultdict(set)
    for tags, _, _, name in pairs:
        for tag in tags:
            tagged[tag].add(name)
    return max(tagged, key=lambda tag: len(shown & tagged[tag]) / len(shown | tagged[tag])) if shown else 0


def _file_problems(samples: Sequence[Sample], root: Path) -> Iterator[str]:
    """Tiny images, and those that a link leads to outside the data set's folder: allowed, and worth knowing."""
    tiny = [sample.id for sample in samples if min(sample.size) < TINY]
    if tiny:
        yield f"tiny: {plural(len(tiny), 'image')} with a side below {TINY} pixels: {_first(tiny)}"
    top = os.path.realpath(root)
    outside = [s.id for s in samples if not Path(os.path.realpath(s.path)).is_relative_to(top)]
    if outside:
        yield f"links: {plural(len(outside), 'image')} outside {root}, reached by links: {_first(outside)}"


def _same_bytes(samples: Sequence[Sample], train: str) -> Iterator[str]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.image_digest].append(sample)
    copies = {" = ".join(sample.id for sample in group): group for group in groups.values() if len(group) > 1}
    across = [ids for ids, group in copies.items() if len({sample.split for sample in group}) > 1]
    if across:
        yield (
            f"in both splits: {plural(len(across), 'image')}, byte by byte: {_first(across)}. Scores would count "
            "what was learned by heart: keep each in one split"
        )
    differing = [ids for ids, group in copies.items() if len({sample.tags for sample in group}) > 1]
    if differing:
        yield (
            f"contradicting: {plural(len(differing), 'image')} listed more than once with different tags: "
            f"{_first(differing)}"
        )
    within = [ids for ids, group in copies.items() if sum(sample.split == train for sample in group) > 1]
    if within:
        yield f"copies: {plural(len(within), 'image')} more than once in training: {_first(within)}"


def _near_duplicates(
    training: Sequence[Sample], validation: Sequence[Sample], progress: bool
) -> Iterator[str]:
    hashes = perceptual_hashes([sample.image for sample in (*training, *validation)], progress=progress)
    pairs = [
        f"{training[a].id} and {validation[b].id}"
        for a, b in near_pairs(hashes[: len(training)], hashes[len(training) :])
        if training[a].image_digest != validation[b].image_digest
    ]
    if pairs:
        yield (
            f"alike in both splits: {plural(len(pairs), 'pair')} of nearly the same image: {_first(pairs)}. Keep "
            "each pair in one split"
        )


def _first(items: Sequence[str]) -> str:
    rest = len(items) - 3
    return ", ".join(items[:3]) + (f" and {rest} more" if rest > 0 else "")


# ---- images that are nearly the same


def perceptual_hashes(paths: Sequence[Path], *, progress: bool) -> Hashes:
    """Hash images by their coarse brightness (difference hash, along rows and along columns).

    Args:
        paths: files that Pillow reads.
        progress: show a bar.

    Returns:
        uint64 ``(n, 2)``; zero where an image is blank.
    """
    heif_is_readable()  # for `_hash`, which opens files itself
    hashes = np.zeros((len(paths), 2), np.uint64)
    found = in_order(_hash, paths, threads=os.cpu_count() or 1)  # threads: Pillow releases the GIL
    for index, value in enumerate(
        tqdm(found, total=len(paths), desc="comparing images", disable=not progress)
    ):
        hashes[index] = value
    return hashes


def near_pairs(left: Hashes, right: Hashes) -> Iterator[tuple[int, int]]:
    """Yield the positions of pairs, one of each side, that are nearly the same image.

    Memory does not depend on the number of images, and time is that of n x m comparisons of 16 bytes.
    """
    known = np.flatnonzero(right.any(axis=1))
    candidates = right[known]
    for start in range(0, len(left), _BLOCK):
        block = left[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None, 0] ^ candidates[None, :, 0])
        distance += np.bitwise_count(block[:, None, 1] ^ candidates[None, :, 1])
        near = (distance <= _NEAR) & (block != 0).any(axis=1, keepdims=True)
        for row, column in np.argwhere(near).tolist():
            yield start + row, int(known[column])


def _hash(path: Path) -> Hashes:
    """uint64 ``(2,)``: whether it gets brighter from place to place, along rows and along columns."""
    with Image.open(path) as image:
        image.draft("L", (8 * _SIDE, 8 * _SIDE))  # JPEG: decode at an eighth where that is enough
        gray = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    if gray.std() < _FLAT:
        return np.zeros(2, np.uint64)
    along_rows = gray[:-1, 1:] > gray[:-1, :-1]
    along_columns = gray[1:, :-1] > gray[:-1, :-1]
    return np.packbits([along_rows.ravel(), along_columns.ravel()], axis=1).view(np.uint64)[:, 0]
