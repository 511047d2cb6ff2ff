"""The figures of one run that variants are compared by, read from its measures (docs/report.md).

From finished runs to rows: means and deviations over seeds, and paired differences to the first variant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wsss.metrics.intervals import mean_and_deviation, paired_difference

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


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        variant: its name.
        seed: of the run.
        run: name of the run in the workspace.
        figures: by metric's key, None where there is none.
    """

    variant: str
    seed: int
    run: str
    figures: Mapping[str, Value]


@dataclass(frozen=True)
class FailedRun:
    """A run that ended in an error for the user, such as a loss that is not finite.

    Attributes:
        variant: its name.
        seed: of the run.
        message: of the error.
    """

    variant: str
    seed: int
    message: str


@dataclass(frozen=True)
class Summary:
    """A variant's figure over its seeds, and what it is against the first variant.

    Attributes:
        n: seeds with a value.
        mean: over them.
        sd: standard deviation (n - 1); None for one seed.
        pairs: seeds that the first variant has a value of, too; 0 for the first variant itself.
        difference: mean of this minus the first over these pairs.
        low: lower end of the difference's 95 % interval; None with fewer than two pairs.
        high: upper end.
        verdict: ``gain``, ``loss`` or ``other`` where the interval excludes 0; else empty.
    """

    n: int
    mean: float
    sd: Value
    pairs: int = 0
    difference: Value = None
    low: Value = None
    high: Value = None
    verdict: str = ""


@dataclass(frozen=True)
class Results:
    """All that the outputs say.

    Attributes:
        name: of the ablation.
        variants: names, the first is the reference.
        seeds: asked for.
        overrides: of each variant.
        stages: that the built-in variants change.
        runs: the finished ones.
        failed: those that ended in an error.
        costs: by variant; empty where not measured.
    """

    name: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: Mapping[str, Sequence[str]]
    stages: tuple[str, ...]
    runs: Sequence[RunResult]
    failed: Sequence[FailedRun] = ()
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The variant that the others are set against."""
        return self.variants[0]

    @property
    def planned(self) -> int:
        """How many runs there are when all is done."""
        return len(self.variants) * len(self.seeds)

    @property
    def ordered(self) -> list[RunResult]:
        """The finished runs, seed by seed, whichever was computed first."""
        seeds, variants = self.seeds.index, self.variants.index
        return sorted(self.runs, key=lambda run: (seeds(run.seed), variants(run.variant)))

    def values(self, variant: str, key: str) -> dict[int, float]:
        """Seed -> value, for the seeds that have one, in the order of the seeds."""
        found = {run.seed: run.figures.get(key) for run in self.runs if run.variant == variant}
        known = {seed: found.get(seed) for seed in self.seeds}
        return {seed: value for seed, value in known.items() if value is not None}

    def summary(self, variant: str, key: str) -> Summary | None:
        """A variant's figure over its seeds; None where no seed has one."""
        own, first = self.values(variant, key), self.values(self.reference, key)
        if not own:
            return None
        mean, deviation = mean_and_deviation(list(own.values()))
        both = [seed for seed in own if seed in first]
        if variant == self.reference or not both:
            return Summary(len(own), mean, deviation)
        found = paired_difference([first[seed] for seed in both], [own[seed] for seed in both])
        verdict = _verdict(found.mean, BY_KEY[key].better) if found.excludes_zero else ""
        return Summary(len(own), mean, deviation, found.pairs, found.mean, found.low, found.high, verdict)

    def known_keys(self) -> list[str]:
        """The metrics that at least one run has a value of."""
        return [
            metric.key
            for metric in METRICS
            if any(run.figures.get(metric.key) is not None for run in self.runs)
        ]


def _verdict(difference: float, better: str) -> str:
    if not better:
        return "other"
    return "gain" if (difference > 0) == (better == "more") else "loss"
