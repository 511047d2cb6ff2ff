"""Samples kept as columns: a few lists and arrays instead of an object per image, which is made when asked for.

What an unchanged run needs of a hundred thousand samples is their number and their digest; columns are read
from a file (see `data.listing_cache`) in a fraction of the time that as many objects take to be made.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from data.coco import CocoMask
from data.samples import Sample

Int64 = NDArray[np.int64]
Identity = tuple[str, Sequence[int], str, str, str | None]
"""Of a sample: id, tags, split, digest of the photograph, digest of the mask."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths.

    Attributes:
        values: int64, all rows one after another.
        ends: int64 ``(N + 1,)``: row i is ``values[ends[i] : ends[i + 1]]``.
    """

    values: Int64
    ends: Int64

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | Int64]) -> "Ragged":
        """Put rows together."""
        ends = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=ends[1:])
        parts = [np.asarray(row, np.int64) for row in rows]
        return cls(np.concatenate([np.zeros(0, np.int64), *parts]), ends)

    def row(self, index: int) -> Int64:
        """Return one row."""
        return self.values[self.ends[index] : self.ends[index + 1]]

    def lists(self, order: Int64) -> Iterator[list[int]]:
        """Yield rows as lists, in this order."""
        values, starts = self.values.tolist(), self.ends[order].tolist()
        for start, end in zip(starts, self.ends[order + 1].tolist(), strict=True):
            yield values[start:end]


@dataclass(frozen=True)
class Columns:
    """N samples, a column per attribute. Their masks, if any, are drawn from COCO annotations.

    Attributes:
        root: the data set's folder.
        ids: the samples' ids.
        images: photographs, relative to root.
        tags: class indices.
        splits: names of the splits.
        split: ``(N,)`` positions in ``splits``.
        sizes: ``(N, 2)`` H and W.
        image_digests: of the photographs.
        mask_digests: of the masks, empty for none.
        files: annotation files.
        mask_places: ``(N, 2)`` of masks: position in ``files`` and the image's id there.
        mask_parts: `data.coco.CocoMask.parts` as numbers.
    """

    root: Path
    ids: Sequence[str]
    images: Sequence[str]
    tags: Ragged
    splits: Sequence[str]
    split: Int64
    sizes: Int64
    image_digests: Sequence[str]
    mask_digests: Sequence[str]
    files: Sequence[str]
    mask_places: Int64
    mask_parts: Ragged

    @classmethod
    def of(cls, root: Path, samples: Sequence[Sample]) -> "Columns":
        """Take samples apart.

        Raises:
            ValueError: a mask that is no `CocoMask`, or a size that is not its photograph's.
        """
        masks = [_coco(sample) for sample in samples]
        splits = sorted({sample.split for sample in samples})
        files = sorted({str(mask.file) for mask in masks if mask})
        prefix = f"{root.as_posix()}/"
        places = [(files.index(str(mask.file)), mask.image) if mask else (-1, 0) for mask in masks]
        return cls(
            root=root,
            ids=[sample.id for sample in samples],
            images=[sample.image.as_posix().removeprefix(prefix) for sample in samples],
            tags=Ragged.of([sample.tags for sample in samples]),
            splits=splits,
            split=np.array([splits.index(sample.split) for sample in samples], np.int64),
            sizes=np.array([sample.size for sample in samples], np.int64).reshape(-1, 2),
            image_digests=[sample.image_digest for sample in samples],
            mask_digests=[sample.mask_digest or "" for sample in samples],
            files=files,
            mask_places=np.array(places, np.int64).reshape(-1, 2),
            mask_parts=Ragged.of([np.frombuffer(mask.parts if mask else b"", np.int64) for mask in masks]),
        )

    def __len__(self) -> int:
        """Return N."""
        return len(self.ids)

    def places(self) -> list[str]:
        """Return each photograph's path."""
        return [os.path.join(self.root, image) for image in self.images]  # noqa: PTH118

    def sample(self, index: int, *, masked: bool) -> Sample:
        """Make one sample; without its mask unless ``masked``."""
        digest = self.mask_digests[index] if masked else ""
        H, W = self.sizes[index].tolist()
        return Sample(
            id=self.ids[index],
            image=self.root / self.images[index],
            tags=tuple(self.tags.row(index).tolist()),
            split=self.splits[int(self.split[index])],
            mask=self._mask(index, (H, W)) if digest else None,
            size=(H, W),
            image_digest=self.image_digests[index],
            mask_digest=digest or None,
        )

    def _mask(self, index: int, size: tuple[int, int]) -> CocoMask:
        file, image = self.mask_places[index].tolist()
        return CocoMask(Path(self.files[file]), image, size, self.mask_parts.row(index).tobytes())


class ColumnSamples(Sequence[Sample]):
    """Some samples of `Columns`, made when asked for; equal to any sequence of the same samples.

    Args:
        columns: of all samples.
        order: which of them, in which order; None for all.
        masked: which of these have their masks; None for all.
    """

    def __init__(
        self, columns: Columns, order: Int64 | None = None, masked: NDArray[np.bool_] | None = None
    ) -> None:
        self.columns = columns
        self.order = np.arange(len(columns)) if order is None else order
        self.masked = np.ones(len(self.order), np.bool_) if masked is None else masked

    def of_split(self, name: str) -> "ColumnSamples":
        """Return those of one split."""
        columns = self.columns
        code = columns.splits.index(name) if name in columns.splits else -1
        chosen = columns.split[self.order] == code
        return ColumnSamples(columns, self.order[chosen], self.masked[chosen])

    def weak(self) -> "ColumnSamples":
        """Return the same without masks."""
        return ColumnSamples(self.columns, self.order, np.zeros(len(self.order), np.bool_))

    def joined(self, other: "ColumnSamples") -> "ColumnSamples":
        """Return these, then others of the same columns."""
        return ColumnSamples(
            self.columns,
            np.concatenate([self.order, other.order]),
            np.concatenate([self.masked, other.masked]),
        )

    def identities(self) -> Iterator[Identity]:
        """Yield what a data set's digest is made of, sample by sample, without making any."""
        columns = self.columns
        rows = zip(self.order.tolist(), self.masked.tolist(), columns.tags.lists(self.order), strict=True)
        codes = columns.split.tolist()
        for index, masked, tags in rows:
            mask = columns.mask_digests[index] if masked else ""
            yield (
                columns.ids[index],
                tags,
                columns.splits[codes[index]],
                columns.image_digests[index],
                mask or None,
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.order)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...

    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        """Make one sample, or a tuple of them."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        return self.columns.sample(int(self.order[index]), masked=bool(self.masked[index]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<{len(self)} samples>"


def identities(samples: Iterable[Sample]) -> Iterator[Identity]:
    """Yield what a data set's digest is made of, sample by sample."""
    if isinstance(samples, ColumnSamples):
        yield from samples.identities()
        return
    for sample in samples:
        yield sample.id, sample.tags, sample.split, sample.image_digest, sample.mask_digest


def _coco(sample: Sample) -> CocoMask | None:
    mask: Any = sample.mask
    if mask is None:
        return None
    if not isinstance(mask, CocoMask) or mask.size != sample.size or not sample.mask_digest:
        raise ValueError(f"{sample.id}: a mask that columns do not hold")
    return mask
