"""Two runs' measures of one stage, on the images and classes that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.commands.report.values import Values, plain
from wsss.metrics.failures import DEPTHS, SIZES
from wsss.metrics.intervals import Difference, paired_bootstrap
from wsss.metrics.tally import FAILURE_COLUMNS, LABEL_COLUMNS

Table = NDArray[np.float64]

PER_LABEL = len(LABEL_COLUMNS) - 1
FAILURES: tuple[tuple[str, str, str, str, str], ...] = (
    *(
        (f"failure1.recall_{size}", f"recall of {size} objects", f"found {size}", f"pixels {size}", "more")
        for size in SIZES
    ),
    *(
        (
            f"failure1.missed_{size}",
            f"{size} objects missed",
            f"missed objects {size}",
            f"objects {size}",
            "less",
        )
        for size in SIZES
    ),
    *(
        (
            f"failure1.recall_depth_{index}",
            f"recall at depth {depth}",
            f"found depth {depth}",
            f"pixels depth {depth}",
            "more",
        )
        for index, depth in enumerate(DEPTHS)
    ),
    ("failure1.recall_thin", "recall of thin parts", "found thin", "pixels thin", "more"),
    ("failure2.mistaken", "large objects mistaken", "mistaken", "pixels of large objects", "less"),
    ("failure2.split_objects", "large objects split", "split", "large objects", "less"),
)
"""Key, title, column of what is counted, column of all, and which direction is better."""


@dataclass(frozen=True)
class Line:
    """One compared figure; shares in [0, 1] unless it is an indicator. None where undefined.

    Attributes:
        key: stable name.
        title: for people.
        better: ``more``, ``less`` or empty.
        a: figure of the first run.
        b: of the other.
        difference: b - a.
        low: lower end of the 95 % interval of the difference.
        high: upper end.
    """

    key: str
    title: str
    better: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None

    @property
    def sure(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` where the interval excludes zero and a direction is better, else empty."""
        if not self.sure or not self.better or self.difference is None:
            return ""
        return "gain" if (self.difference > 0) == (self.better == "more") else "loss"


@dataclass(frozen=True)
class StagePair:
    """One stage of two runs, compared.

    Attributes:
        stage: its name.
        images: ids of the scored images that both have with the same truth.
        notes: what is not comparable, in words.
        scores: overall figures.
        classes: IoU per class.
        failures: Failure-1 and Failure-2.
        indicators: means over the images of both, in their own units.
        changes: (id, mIoU of A, mIoU of B) per scored image, the largest loss first.
    """

    stage: str
    images: tuple[str, ...]
    notes: tuple[str, ...]
    scores: tuple[Line, ...]
    classes: tuple[Line, ...]
    failures: tuple[Line, ...]
    indicators: tuple[Line, ...]
    changes: tuple[tuple[str, float, float], ...]


def pair_stage(stage: str, a: Values, b: Values, *, resamples: int, seed: int = 0) -> StagePair:
    """Compare one stage of two reports.

    Args:
        stage: cams, refine or segment; both reports must have it.
        a: report.json of the first run.
        b: of the other.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    names, notes = _common_labels(a["labels"], b["labels"])
    images, more = _common_images(stage, a, b)
    notes += more
    scores: tuple[Line, ...] = ()
    classes: tuple[Line, ...] = ()
    failures: tuple[Line, ...] = ()
    changes: tuple[tuple[str, float, float], ...] = ()
    if images and names:
        first, second = (_label_table(stage, report, images, names) for report in (a, b))
        found = paired_bootstrap(
            first, second, lambda sums: _scores(sums, names), resamples=resamples, seed=seed
        )
        lines = _lines(found, _score_keys(names))
        scores, classes = lines[:4], lines[4:]
        changes = _changes(images, first, second)
        if a["labels"] == b["labels"]:
            failures = _failures(stage, a, b, images, resamples, seed)
    indicators = _indicators(stage, a, b, resamples, seed)
    return StagePair(stage, images, tuple(notes), scores, classes, failures, indicators, changes)


def _common_labels(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels of both by name. Where the classes differ, background means different things and is left out."""
    if list(a) == list(b):
        return list(a), []
    shared = [name for name in a if name in b]
    if set(a) == set(b):
        return shared, ["The classes are the same in another order; they are compared by name."]
    shared = shared[1:]
    text = (
        f"The classes differ: {len(a) - 1} against {len(b) - 1}, {len(shared)} in common. Only these are compared, "
        "without background and without the failure figures, which depend on the other classes."
    )
    return shared, [text]


def _common_images(stage: str, a: Values, b: Values) -> tuple[tuple[str, ...], list[str]]:
    """Scored images of both with the same truth, and what keeps the others out."""
    first, second = _truths(stage, a), _truths(stage, b)
    both = [image_id for image_id in first if image_id in second]
    same = tuple(image_id for image_id in both if first[image_id] == second[image_id])
    notes = []
    if not first or not second:
        notes.append("No ground truth in at least one of the two: scores are not compared.")
    elif len(same) < max(len(first), len(second)):
        notes.append(
            f"Scored on different images: {len(first)} against {len(second)}; compared on the {len(same)} that both "
            f"have with the same ground truth{_changed_truth(len(both) - len(same))}."
        )
    if a[f"{stage}.split"] != b[f"{stage}.split"]:
        notes.append(f"Different splits: {a[f'{stage}.split']} against {b[f'{stage}.split']}.")
    return same, notes


def _changed_truth(count: int) -> str:
    return f" ({count} have another mask)" if count else ""


def _truths(stage: str, report: Values) -> dict[str, str]:
    rows = zip(
        report[f"{stage}.per_image.id"],
        report[f"{stage}.truth"],
        report[f"{stage}.per_image.labels"],
        strict=True,
    )
    return {image_id: truth for image_id, truth, labels in rows if labels is not None}


def _label_table(stage: str, report: Values, images: Sequence[str], names: Sequence[str]) -> Table:
    """(n, L * 5) counts per image and label, labels in the order of ``names``."""
    position = {report["labels"].index(name): index for index, name in enumerate(names)}
    rows = dict(zip(report[f"{stage}.per_image.id"], report[f"{stage}.per_image.labels"], strict=True))
    table = np.zeros((len(images), len(names), PER_LABEL))
    for index, image_id in enumerate(images):
        for label, *counts in rows[image_id]:
            if label in position:
                table[index, position[label]] = counts
    return table.reshape(len(images), -1)


def _scores(sums: Table, names: Sequence[str]) -> Table:
    """(R, L * 5) sums -> (R, 4 + L): mIoU, boundary IoU, pixel accuracy, frequency-weighted IoU, IoU by label."""
    right, truth, predicted, band_right, band_either = np.moveaxis(
        sums.reshape(len(sums), len(names), PER_LABEL), 2, 0
    )
    ious = _ratio(right, truth + predicted - right)
    bands = _ratio(band_right, band_either)
    objects = bands[:, 1:] if names[0] == "background" else bands
    overall = [
        _row_mean(ious),
        _row_mean(objects),
        _ratio(right.sum(1), truth.sum(1)),
        _ratio(np.nansum(ious * truth, axis=1), truth.sum(1)),
    ]
    return np.concatenate([np.stack(overall, axis=1), ious], axis=1)


def _score_keys(names: Sequence[str]) -> list[tuple[str, str, str]]:
    overall = [
        ("miou", "mIoU", "more"),
        ("boundary_iou", "boundary IoU", "more"),
        ("accuracy", "pixel accuracy", "more"),
        ("fwiou", "frequency-weighted IoU", "more"),
    ]
    return overall + [(f"iou.{name}", name, "more") for name in names]


def _failures(
    stage: str, a: Values, b: Values, images: Sequence[str], resamples: int, seed: int
) -> tuple[Line, ...]:
    parts = [FAILURE_COLUMNS.index(part) for _, _, part, _, _ in FAILURES]
    wholes = [FAILURE_COLUMNS.index(whole) for _, _, _, whole, _ in FAILURES]
    found = paired_bootstrap(
        _failure_table(stage, a, images),
        _failure_table(stage, b, images),
        lambda sums: _ratio(sums[:, parts], sums[:, wholes]),
        resamples=resamples,
        seed=seed,
    )
    return _lines(found, [(key, title, better) for key, title, _, _, better in FAILURES])


def _failure_table(stage: str, report: Values, images: Sequence[str]) -> Table:
    rows = dict(zip(report[f"{stage}.per_image.id"], report[f"{stage}.per_image.failures"], strict=True))
    return np.asarray([rows[image_id] for image_id in images], dtype=np.float64)


def _indicators(stage: str, a: Values, b: Values, resamples: int, seed: int) -> tuple[Line, ...]:
    prefix = f"{stage}.per_image.indicator."
    lines: list[Line] = []
    for key in (key for key in a if key.startswith(prefix) and key in b):
        first, second = _column(stage, a, key), _column(stage, b, key)
        pairs = [(first[i], second[i]) for i in first if second.get(i) is not None and first[i] is not None]
        if pairs:
            values = np.asarray(pairs, dtype=np.float64)
            one = np.ones(len(values))
            found = paired_bootstrap(
                np.stack([values[:, 0], one], axis=1),
                np.stack([values[:, 1], one], axis=1),
                lambda sums: sums[:, :1] / sums[:, 1:],
                resamples=resamples,
                seed=seed,
            )
            name = key.removeprefix(prefix)
            lines += _lines(found, [(f"indicator.{name}", name, "")])
    return tuple(lines)


def _column(stage: str, report: Values, key: str) -> dict[str, Any]:
    return dict(zip(report[f"{stage}.per_image.id"], report[key], strict=True))


def _changes(images: Sequence[str], a: Table, b: Table) -> tuple[tuple[str, float, float], ...]:
    """Each image's own mIoU in both, the largest loss first."""
    means = []
    for table in (a, b):
        right, truth, predicted = np.moveaxis(table.reshape(len(images), -1, PER_LABEL)[..., :3], 2, 0)
        means.append(_row_mean(_ratio(right, truth + predicted - right)))
    known = [
        (image_id, float(first), float(second))
        for image_id, first, second in zip(images, *means, strict=True)
        if np.isfinite(first) and np.isfinite(second)
    ]
    return tuple(sorted(known, key=lambda row: (row[2] - row[1], row[0])))


def _lines(found: Difference, keys: Sequence[tuple[str, str, str]]) -> tuple[Line, ...]:
    columns = (found.a, found.b, found.value, found.low, found.high)
    return tuple(
        Line(key, title, better, *(plain(column[index]) for column in columns))
        for index, (key, title, better) in enumerate(keys)
    )


def _ratio(part: Table, whole: Table) -> Table:
    return np.asarray(np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan))


def _row_mean(values: Table) -> Table:
    """Mean of the defined values of each row, NaN where there is none."""
    known = np.isfinite(values).sum(1)
    return np.asarray(np.where(known > 0, np.nansum(values, axis=1) / np.maximum(known, 1), np.nan))


def config_differences(reports: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Keys whose values are not the same in all reports, with each report's value; where it ran is left out."""
    keys = dict.fromkeys(key for report in reports for key in report["config"])
    rows = [
        (key, [report["config"].get(key) for report in reports]) for key in keys if not key.startswith("run.")
    ]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]
