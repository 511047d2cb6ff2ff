"""The figures of one run that variants are compared by, read from its measures (docs/report.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Measures = Mapping[str, Mapping[str, Any]]
Value = float | None
STAGES: Mapping[str, str] = {"cams": "CAM seed", "refine": "pseudo-masks", "segment": "validation"}


@dataclass(frozen=True)
class Metric:
    """A figure.

    Attributes:
        key: ``stage.name``, as in report.json where it is there.
        title: with the stage's.
        short: without.
        better: ``more``, ``less`` or ``""``.
        unit: ``share`` in [0, 1], or ``seconds``.
        read: from the stage's measures; None where undefined.
    """

    key: str
    title: str
    short: str
    better: Literal["more", "less", ""]
    unit: Literal["share", "seconds"]
    read: Callable[[Mapping[str, Any]], Value]

    @property
    def stage(self) -> str:
        """The stage that it is about."""
        return self.key.split(".")[0]


def run_figures(measures: Measures, seconds: Mapping[str, Value]) -> dict[str, Value]:
    """Every metric of one run.

    Args:
        measures: of the measured stages, by name.
        seconds: recorded times of the training stages, by name.

    Returns:
        Values by key; None where the data set or the run cannot give one.
    """
    figures = {}
    for metric in METRICS:
        if metric.unit == "seconds":
            figures[metric.key] = seconds.get(metric.stage)
        else:
            values = measures.get(metric.stage)
            figures[metric.key] = metric.read(values) if values else None
    return figures


def missed_below_medium(values: Mapping[str, Any]) -> Value:
    """Failure-1: share of tiny and small objects (below 4 % of the image) of which less than 10 % was found."""
    missed, objects = values.get("failure1.missed_by_size"), values.get("failure1.objects_by_size")
    if not missed or not objects or not sum(objects[:2]):
        return None
    return float(
        sum((share or 0.0) * count for share, count in zip(missed[:2], objects[:2], strict=True))
        / sum(objects[:2])
    )


def thin_parts_missed(values: Mapping[str, Any]) -> Value:
    """Failure-1: share of the thin parts' pixels that were not found."""
    found = values.get("failure1.recall_thin")
    return None if found is None else 1 - float(found)


def _plain(name: str) -> Callable[[Mapping[str, Any]], Value]:
    return lambda values: values.get(name)


def _of_stage(stage: str, title: str) -> list[Metric]:
    rows: list[tuple[str, str, Literal["more", "less"], Callable[[Mapping[str, Any]], Value]]] = [
        ("miou", "mIoU", "more", _plain("miou")),
        ("boundary_iou", "Boundary IoU", "more", _plain("boundary_iou")),
        ("failure1.missed", "small objects missed", "less", missed_below_medium),
        ("failure1.thin_missed", "thin parts missed", "less", thin_parts_missed),
        ("failure2.mistaken", "large objects' pixels mistaken", "less", _plain("failure2.mistaken")),
        ("failure2.split_objects", "large objects split", "less", _plain("failure2.split_objects")),
    ]
    if stage == "cams":
        rows.insert(1, ("best_miou", "mIoU at the best threshold", "more", _plain("best_miou")))
    return [
        Metric(f"{stage}.{name}", f"{title}: {short}", short, better, "share", read)
        for name, short, better, read in rows
    ]


METRICS: tuple[Metric, ...] = (
    *(metric for stage, title in STAGES.items() for metric in _of_stage(stage, title)),
    Metric("classify.seconds", "training of classify", "classify", "", "seconds", _plain("seconds")),
    Metric("segment.seconds", "training of segment", "segment", "", "seconds", _plain("seconds")),
)
"""All figures, in the order of the pages."""
BY_KEY: Mapping[str, Metric] = {metric.key: metric for metric in METRICS}
