"""Two runs' figures of one stage, on the images and classes that both have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.commands.report.values import Values, plain
from wsss.metrics.confusion import LABEL_COLUMNS, mean_defined, ratio
from wsss.metrics.failures import DEPTHS, FAILURE_COLUMNS, SIZES
from wsss.metrics.intervals import Statistic, Table, paired_bootstrap

PER_LABEL = len(LABEL_COLUMNS) - 1
SCORES = (
    ("miou", "mIoU", "more"),
    ("boundary_iou", "boundary IoU", "more"),
    ("accuracy", "pixel accuracy", "more"),
    ("fwiou", "frequency-weighted IoU", "more"),
)
"""Key, title, and which direction is better."""
FAILURES = (
    *((f"1.recall_{s}", f"recall of {s} objects", "more", f"found {s}", f"pixels {s}") for s in SIZES),
    *((f"1.missed_{s}", f"{s} objects missed", "less", f"missed objects {s}", f"objects {s}") for s in SIZES),
    *(
        (f"1.recall_depth_{i}", f"recall at depth {d}", "more", f"found depth {d}", f"pixels depth {d}")
        for i, d in enumerate(DEPTHS)
    ),
    ("1.recall_thin", "recall of thin parts", "more", "found thin", "pixels thin"),
    ("2.mistaken", "large objects mistaken", "less", "mistaken", "pixels of large objects"),
    ("2.split_objects", "large objects split", "less", "split", "large objects"),
)
"""The same (a key follows ``failure``), then the columns of what is counted and of all."""


@dataclass(frozen=True)
class Line:
    """One compared figure; shares in [0, 1] unless it is an indicator. None where undefined.

    Attributes:
        key, title: stable name, and the one for people.
        better: ``more``, ``less`` or empty.
        a, b, difference: figures of the first run and of the other; b - a.
        low, high: ends of the 95 % interval of the difference.
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
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """``gain`` or ``loss`` where the interval excludes zero and a direction is better, else empty."""
        if not self.certain or not self.better or self.difference is None:
            return ""
        return "gain" if (self.difference > 0) == (self.better == "more") else "loss"


@dataclass(frozen=True)
class StagePair:
    """One stage of two runs, compared.

    Attributes:
        shared: both runs have this very result, from one artifact: there is nothing to compare.
        images: ids of the scored images that both have with the same ground truth.
        notes: what is not comparable, in words.
        scores, classes, failures: overall figures, IoU per class, Failure-1 and Failure-2.
        indicators: means over the images of both, in their own units.
        changes: (id, mIoU of A, mIoU of B) per scored image, the largest loss first.
    """

    stage: str
    shared: bool
    images: tuple[str, ...]
    notes: tuple[str, ...]
    scores: tuple[Line, ...] = ()
    classes: tuple[Line, ...] = ()
    failures: tuple[Line, ...] = ()
    indicators: tuple[Line, ...] = ()
    changes: tuple[tuple[str, float, float], ...] = ()

    @property
    def told(self) -> str:
        """What the mIoU tells: ``better``, ``worse``, ``cannot be told`` or ``the same result``."""
        if self.shared:
            return "the same result"
        return {"gain": "better", "loss": "worse"}.get(
            self.scores[0].verdict if self.scores else "", "cannot be told"
        )


def pair_stage(stage: str, a: Values, b: Values, *, resamples: int) -> StagePair:
    """Compare one stage of two reports (report.json); both must have it. ``resamples``: of the bootstrap."""
    names, notes = _common_labels(a["labels"], b["labels"])
    images, more = _common_images(stage, a, b)
    found: dict[str, Any] = {"indicators": tuple(_indicators(stage, a, b, resamples))}
    if images and names:
        tables = [_label_table(stage, report, images, names) for report in (a, b)]
        keys = [*SCORES, *((f"iou.{name}", name, "more") for name in names)]
        lines = _lines(keys, tables, lambda sums: _scores(sums, names), resamples)
        found |= {"scores": lines[: len(SCORES)], "classes": lines[len(SCORES) :]}
        found["changes"] = _changes(images, *(_scores(table, names)[:, 0] for table in tables))
        if a["labels"] == b["labels"]:
            found["failures"] = _failures(stage, a, b, images, resamples)
    same = ["labels", *(f"{stage}.{key}" for key in ("fingerprint", "threshold", "truth"))]
    shared = all(a.get(key) == b.get(key) for key in same)
    return StagePair(stage, shared, tuple(images), (*notes, *more), **found)


def _common_labels(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels of both by name. Where the classes differ, background means different things and is left out."""
    shared = [name for name in a if name in b]
    if list(a) == list(b):
        return shared, []
    if set(a) == set(b):
        return shared, ["The classes are the same in another order; they are compared by name."]
    text = (
        f"The classes differ: {len(a) - 1} against {len(b) - 1}, {len(shared) - 1} in common. Only these are "
        "compared, without background and without the failure figures, which depend on the other classes."
    )
    return shared[1:], [text]


def _common_images(stage: str, a: Values, b: Values) -> tuple[list[str], list[str]]:
    """Scored images of both with the same ground truth, and what keeps the others out."""
    first, second = (
        {image: truth for image, truth in _column(stage, report, "truth").items() if truth is not None}
        for report in (a, b)
    )
    both = [image for image in first if image in second]
    same = [image for image in both if first[image] == second[image]]
    notes = []
    if not first or not second:
        notes.append("No ground truth in at least one of the two: scores are not compared.")
    elif len(same) < max(len(first), len(second)):
        changed = f" ({len(both) - len(same)} have another mask)" if len(both) > len(same) else ""
        notes.append(
            f"Scored on different images: {len(first)} against {len(second)}; compared on the {len(same)} that both "
            f"have with the same ground truth{changed}."
        )
    if a[f"{stage}.split"] != b[f"{stage}.split"]:
        notes.append(f"Different splits: {a[f'{stage}.split']} against {b[f'{stage}.split']}.")
    return same, notes


def _column(stage: str, report: Values, name: str) -> dict[str, Any]:
    """A value per image, by its id."""
    return dict(zip(report[f"{stage}.per_image.id"], report[f"{stage}.{name}"], strict=True))


def _label_table(stage: str, report: Values, images: Sequence[str], names: Sequence[str]) -> Table:
    """(n, L * 5) counts per image and label, labels in the order of ``names``."""
    position = {report["labels"].index(name): index for index, name in enumerate(names)}
    rows = _column(stage, report, "per_image.labels")
    table = np.zeros((len(images), len(names), PER_LABEL))
    for index, image in enumerate(images):
        for label, *counts in rows[image]:
            if label in position:
                table[index, position[label]] = counts
    return table.reshape(len(images), -1)


def _scores(sums: Table, names: Sequence[str]) -> Table:
    """(R, L * 5) sums -> (R, 4 + L): SCORES, then IoU by label."""
    right, truth, predicted, band_right, band_either = np.moveaxis(
        sums.reshape(len(sums), -1, PER_LABEL), 2, 0
    )
    ious, bands = ratio(right, truth + predicted - right), ratio(band_right, band_either)
    overall = [
        mean_defined(ious),
        mean_defined(bands[:, 1:] if names[0] == "background" else bands),
        ratio(right.sum(1), truth.sum(1)),
        ratio(np.nansum(ious * truth, axis=1), truth.sum(1)),
    ]
    return np.concatenate([np.stack(overall, axis=1), ious], axis=1)


def _failures(stage: str, a: Values, b: Values, images: Sequence[str], resamples: int) -> tuple[Line, ...]:
    columns = [_column(stage, report, "per_image.failures") for report in (a, b)]
    tables = [np.array([column[image] for image in images], dtype=np.float64) for column in columns]
    parts, wholes = ([FAILURE_COLUMNS.index(row[place]) for row in FAILURES] for place in (3, 4))
    keys = [(f"failure{key}", title, better) for key, title, better, *_ in FAILURES]
    return _lines(keys, tables, lambda sums: ratio(sums[:, parts], sums[:, wholes]), resamples)


def _indicators(stage: str, a: Values, b: Values, resamples: int) -> list[Line]:
    prefix, lines = f"{stage}.per_image.indicator.", list[Line]()
    for name in (key.removeprefix(prefix) for key in a if key.startswith(prefix) and key in b):
        first, second = (_column(stage, report, f"per_image.indicator.{name}") for report in (a, b))
        both = [image for image in first if first[image] is not None and second.get(image) is not None]
        if both:
            tables = [np.array([(column[image], 1.0) for image in both]) for column in (first, second)]
            key = (f"indicator.{name}", name, "")
            lines += _lines([key], tables, lambda sums: sums[:, :1] / sums[:, 1:], resamples)
    return lines


def _changes(images: Sequence[str], a: Table, b: Table) -> tuple[tuple[str, float, float], ...]:
    """Each image's own mIoU in both, the largest loss first."""
    rows = zip(images, a.tolist(), b.tolist(), strict=True)
    known = [row for row in rows if np.isfinite(row[1:]).all()]
    return tuple(sorted(known, key=lambda row: (row[2] - row[1], row[0])))


def _lines(
    keys: Sequence[tuple[str, str, str]], tables: Sequence[Table], statistic: Statistic, resamples: int
) -> tuple[Line, ...]:
    found = paired_bootstrap(tables[0], tables[1], statistic, resamples=resamples)
    columns = plain(list(zip(found.a, found.b, found.value, found.low, found.high, strict=True)))
    return tuple(Line(*key, *figures) for key, figures in zip(keys, columns, strict=True))


def config_differences(reports: Sequence[Values]) -> list[tuple[str, list[Any]]]:
    """Keys whose values are not the same in all reports, with each report's value; where it ran is left out."""
    keys = dict.fromkeys(key for report in reports for key in report["config"] if not key.startswith("run."))
    rows = [(key, [report["config"].get(key) for report in reports]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]
