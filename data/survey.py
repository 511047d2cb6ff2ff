"""Photographs that are nearly the same: a perceptual hash of each, compared in bounded memory.

What a data set is like, and what about it will be a problem: class counts, rare and inseparable tags, duplicates.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data import Dataset, Sample
from data.sources.rows import plural
from wsss.config import DataConfig
from wsss.errors import listed
from wsss.runtime.interrupt import Interrupted, check

Hashes = NDArray[np.uint64]

_SIDE = 9
_FLAT = 3.0  # gray levels of deviation below which a hash says nothing: a blank page resembles every other
_NEAR = 10  # of 128 bits: copies resized to two thirds or compressed again were seen to differ in up to 8
_BLOCK = 256


def perceptual_hashes(paths: Sequence[Path], *, progress: bool) -> Hashes:
    """Hash photographs by their coarse brightness (difference hash, along rows and along columns).

    Args:
        paths: files that Pillow reads.
        progress: show a bar.

    Returns:
        uint64 ``(n, 2)``; zero where a picture is blank.
    """
    hashes = np.zeros((len(paths), 2), np.uint64)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: Pillow releases the GIL
        bar = tqdm(
            pool.map(_thumbnail, paths), total=len(paths), desc="comparing photographs", disable=not progress
        )
        try:
            for index, gray in zip(count(), bar):
                check()
                hashes[index] = _hash(gray)
        except Interrupted:
            pool.shutdown(cancel_futures=True)  # not those that nobody waits for any more
            raise
    return hashes


def near_pairs(left: Hashes, right: Hashes) -> Iterator[tuple[int, int]]:
    """Yield the positions of pairs, one of each side, that are nearly the same picture.

    Memory does not depend on the number of pictures, and time is that of n x m comparisons of 16 bytes.
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


def _thumbnail(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        image.draft("L", (8 * _SIDE, 8 * _SIDE))  # JPEG: decode at an eighth where that is enough
        gray = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        return np.asarray(gray, dtype=np.float32)


def _hash(gray: NDArray[np.float32]) -> Hashes:
    """Return uint64 ``(2,)``: whether it gets brighter from place to place, along rows and along columns."""
    if gray.std() < _FLAT:
        return np.zeros(2, np.uint64)
    along_rows = gray[:-1, 1:] > gray[:-1, :-1]
    along_columns = gray[1:, :-1] > gray[:-1, :-1]
    return np.packbits([along_rows.ravel(), along_columns.ravel()], axis=1).view(np.uint64)[:, 0]


RARE = 10
"""Fewer training images of a class than this are called rare."""

TINY = 64
"""Photographs whose short side has fewer pixels than this are called tiny."""

_COMPARED = 20_000  # photographs of both splits; above, near-duplicates are looked for on request only
_EVERYWHERE = 0.95
_SHOWN = 3


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
        duplicates: look for near-duplicates in however many photographs; otherwise up to 20,000.
        progress: show a bar while photographs are compared.
    """
    training = dataset.split(config.train_split)
    validation = dataset.split(config.val_split)
    sides = np.sort(np.array([sample.size for sample in dataset.samples]), axis=1)
    problems = [
        *_rare(training),
        *([] if full else _vague_tags(training)),
        *_validation_problems(training, validation),
        *_mask_problems(training, validation),
        *_size_problems(dataset.samples),
        *_same_bytes(dataset, config),
        *_outside(dataset.samples, Path(config.root)),
    ]
    if len(validation) and (duplicates or len(dataset) <= _COMPARED):
        problems += _near_duplicates(training.samples, validation.samples, progress)
    elif len(validation):
        problems.append("near-duplicates were not looked for in so many photographs: --duplicates does")
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


def _rare(training: Dataset) -> Iterator[str]:
    names, alone = training.classes, _tag_matrix(training).sum(axis=0)
    rare = [f"{names[c]} ({alone[c]})" for c in np.argsort(alone, kind="stable") if alone[c] < RARE]
    if rare:
        yield (
            f"rare: {_number(rare, 'class', 'classes')} with fewer than {RARE} training images: {listed(rare, ', ')}. "
            "Their masks will be poor: add images of them"
        )


def _vague_tags(training: Dataset) -> Iterator[str]:
    """Tags from which one cannot learn where their class is."""
    names = training.classes
    together = _tag_matrix(training).T @ _tag_matrix(training)
    alone = together.diagonal()
    same = [names[c] for c in range(len(names)) if alone[c] > _EVERYWHERE * len(training)]
    if same and len(training) >= RARE:
        yield (
            f"everywhere: {listed(same, ', ')} in nearly every training image. Where it is cannot be learned from tags "
            "that never change: add images without it, with empty tags where they show nothing else"
        )
    yield from _inseparable(names, together)


def _validation_problems(training: Dataset, validation: Dataset) -> Iterator[str]:
    names = training.classes
    if len(validation):
        absent = [names[c] for c in np.flatnonzero(_tag_matrix(validation).sum(axis=0) == 0)]
        if absent and any(sample.tags for sample in validation.samples):
            yield f"not validated: no validation image of {listed(absent, ', ')}: no score for them"
    else:
        yield "no validation images: nothing will be predicted and scored that was not learned from"


def _inseparable(names: Sequence[str], together: NDArray[np.int64]) -> Iterator[str]:
    """Tags of which one never comes without the other."""
    alone = together.diagonal()
    inside = together == alone[:, None]  # [a, b]: wherever a is, b is too
    groups = {tuple(np.flatnonzero(row).tolist()) for row in inside & inside.T}
    always = [" = ".join(names[c] for c in group) for group in sorted(groups) if len(group) > 1]
    pairs = np.argwhere(inside).tolist()
    if always:
        yield (
            f"inseparable: always together in training: {listed(always)}. Tags cannot tell them apart: merge them, or "
            "add images that show one alone"
        )
    never_alone = [f"{names[a]} (with {names[b]})" for a, b in pairs if 1 < alone[a] < alone[b]]
    if never_alone:
        yield (
            f"never alone: {listed(never_alone, ', ')}. Their masks may spread over the other class: add images that "
            "show them without it"
        )


def _mask_problems(training: Dataset, validation: Dataset) -> Iterator[str]:
    learned = any(sample.mask for sample in training.samples)
    held_out = any(sample.mask for sample in validation.samples)
    if not learned and not held_out:
        yield "no masks: results can be looked at, not scored"
    elif not learned:
        yield "no masks of training images: CAMs and pseudo-masks can be looked at, not scored"
    elif len(validation) and not held_out:
        yield "no masks of validation images: predictions can be looked at, not scored"


def _size_problems(samples: Sequence[Sample]) -> Iterator[str]:
    tiny = [sample.id for sample in samples if min(sample.size) < TINY]
    if tiny:
        yield f"tiny: {plural(len(tiny), 'photograph')} with a side below {TINY} pixels: {_first(tiny)}"


def _same_bytes(dataset: Dataset, config: DataConfig) -> Iterator[str]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in dataset.samples:
        groups[sample.image_digest].append(sample)
    copies = [group for group in groups.values() if len(group) > 1]
    across = [_ids(group) for group in copies if len({sample.split for sample in group}) > 1]
    if across:
        yield (
            f"in both splits: {plural(len(across), 'photograph')}, byte by byte: {_first(across)}. Scores would count "
            "what was learned by heart: keep each in one split"
        )
    differing = [_ids(group) for group in copies if len({sample.tags for sample in group}) > 1]
    if differing:
        yield (
            f"contradicting: {plural(len(differing), 'photograph')} listed more than once with different tags: "
            f"{_first(differing)}"
        )
    within = [
        _ids(group) for group in copies if sum(sample.split == config.train_split for sample in group) > 1
    ]
    if within:
        yield f"copies: {plural(len(within), 'photograph')} more than once in training: {_first(within)}"


def _outside(samples: Sequence[Sample], root: Path) -> Iterator[str]:
    """Files that a link leads to outside the data set's folder: allowed, and worth knowing."""
    top = os.path.realpath(root)
    folders = {folder: os.path.realpath(folder) for folder in {sample.image.parent for sample in samples}}
    outside = [
        sample.id
        for sample in samples
        if not _below(
            os.path.realpath(sample.image) if sample.image.is_symlink() else folders[sample.image.parent], top
        )
    ]
    if outside:
        yield f"links: {plural(len(outside), 'photograph')} outside {root}, reached by links: {_first(outside)}"


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


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
            f"alike in both splits: {plural(len(pairs), 'pair')} of nearly the same picture: {_first(pairs)}. Keep "
            "each pair in one split"
        )


def _ids(group: Sequence[Sample]) -> str:
    return " = ".join(sample.id for sample in group)


def _first(items: Sequence[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _number(items: Sequence[str], one: str, many: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else many}"
