"""Photographs that are nearly the same: a perceptual hash of each, compared in bounded memory."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from wsss.interrupt import Interrupted, check

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
