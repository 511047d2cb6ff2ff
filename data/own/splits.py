"""A validation split for lists that have none."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from data.own.found import Tagged


def stratified_validation(rows: Sequence[Tagged], share: float) -> tuple[Tagged, ...]:
    """Move a share of the training photographs to the split ``val``, of each tag about the same share.

    Rare tags choose first (Sechidis et al., On the Stratification of Multi-Label Data, 2011); a tag keeps at least
    half of its photographs in training, and one with two or more has at least one in either split. Which
    photographs go depends on their names alone: the same on every machine, and nearly the same after a few were
    added.

    Args:
        rows: photographs of any splits; only those of ``train`` are moved.
        share: between 0 and 0.5.
    """
    training = sorted((row for row in rows if row.split == "train"), key=_draw)
    counts = Counter(tag for row in training for tag in _tags(row))
    wanted = {tag: min(max(1, round(share * n)), n // 2) for tag, n in counts.items()}
    left = Counter(counts)
    taken: dict[str, Tagged] = {}
    for tag in sorted(counts, key=lambda tag: (counts[tag], tag)):
        have = sum(tag in _tags(row) for row in taken.values())
        for row in training:
            if have >= wanted[tag]:
                break
            if tag not in _tags(row) or row.image in taken or not _spare(row, left, counts):
                continue
            taken[row.image] = row
            left.subtract(_tags(row))
            have += 1
    return tuple(replace(row, split="val") if row.image in taken else row for row in rows)


def _spare(row: Tagged, left: Counter[str], counts: Counter[str]) -> bool:
    """Whether training keeps at least half of every tag of the photograph without it."""
    return all(left[tag] - 1 >= (counts[tag] + 1) // 2 for tag in _tags(row))


def _tags(row: Tagged) -> tuple[str, ...]:
    return row.tags or ("",)  # photographs without tags are a stratum too


def _draw(row: Tagged) -> str:
    return hashlib.sha256(row.image.encode(errors="surrogateescape")).hexdigest()
