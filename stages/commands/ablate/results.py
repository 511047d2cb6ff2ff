"""The figures that variants are compared by, from finished runs to means, deviations and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wsss.metrics.intervals import mean_and_deviation, paired_difference

STAGES: Mapping[str, str] = {"cams": "CAM seed", "refine": "pseudo-masks", "segment": "validation"}


@dataclass(frozen=True)
class Metric:
    """A figure; its key is ``stage.name``, as in report.json where it is there, its short title lacks the stage."""

    key: str
    title: str
    short: str
    better: Literal["more", "less", ""]
    unit: Literal["share", "seconds"] = "share"

    @property
    def stage(self) -> str:
        """The stage that it is about."""
        return self.key.split(".")[0]


_OF_STAGE: tuple[tuple[str, str, Literal["more", "less"]], ...] = (
    ("miou", "mIoU", "more"),
    ("best_miou", "mIoU at the best threshold", "more"),
    ("boundary_iou", "Boundary IoU", "more"),
    ("failure1.missed", "small objects missed", "less"),
    ("failure1.thin_missed", "thin parts missed", "less"),
    ("failure2.mistaken", "large objects' pixels mistaken", "less"),
    ("failure2.split_objects", "large objects split", "less"),
)
METRICS: tuple[Metric, ...] = (
    *(
        Metric(f"{stage}.{name}", f"{title}: {short}", short, better)
        for stage, title in STAGES.items()
        for name, short, better in _OF_STAGE
        if stage == "cams" or name != "best_miou"
    ),
    *(
        Metric(f"{stage}.seconds", f"training of {stage}", stage, "", "seconds")
        for stage in ("classify", "segment")
    ),
)
"""All figures, in the order of the page."""
BY_KEY: Mapping[str, Metric] = {metric.key: metric for metric in METRICS}


def run_figures(
    metrics: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float | None]
) -> dict[str, float | None]:
    """Every figure of one run by key, from its stages' metrics (docs/report.md) and recorded times of training.

    None where the data set or the run cannot give one.
    """
    figures: dict[str, float | None] = {}
    for metric in METRICS:
        values, name = metrics.get(metric.stage, {}), metric.key.split(".", 1)[1]
        if metric.unit == "seconds":
            figures[metric.key] = seconds.get(metric.stage)
        elif name == "failure1.missed":
            figures[metric.key] = _missed_below_medium(values)
        elif name == "failure1.thin_missed":
            found = values.get("failure1.recall_thin")
            figures[metric.key] = None if found is None else 1 - float(found)
        else:
            figures[metric.key] = values.get(name)
    return figures


def _missed_below_medium(values: Mapping[str, Any]) -> float | None:
    """Failure-1: share of tiny and small objects (below 4 % of the image) of which less than 10 % was found."""
    missed = (values.get("failure1.missed_by_size") or [])[:2]
    objects = (values.get("failure1.objects_by_size") or [])[:2]
    if not sum(objects):
        return None
    found = sum((share or 0.0) * count for share, count in zip(missed, objects, strict=True))
    return float(found / sum(objects))


@dataclass(frozen=True)
class RunResult:
    """A finished run: variant, seed, name in the workspace, and figures by metric's key."""

    variant: str
    seed: int
    run: str
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class FailedRun:
    """A run that ended in an error for the user, such as a loss that is not finite."""

    variant: str
    seed: int
    message: str


@dataclass(frozen=True)
class Summary:
    """A variant's figure over its seeds, and its difference to the first variant (docs/ablation.md has the keys).

    Attributes:
        n, mean, sd: seeds with a value, and over them; ``sd`` (n - 1) is None for one seed.
        pairs, difference: seeds that the first variant has a value of, too, and the mean difference to it.
        low, high: 95 % interval of the difference; None with fewer than two pairs.
        verdict: ``gain``, ``loss`` or ``other`` where the interval excludes 0; else empty.
    """

    n: int
    mean: float
    sd: float | None
    pairs: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Results:
    """All that the outputs say: the ablation's settings, its finished and its failed runs.

    ``variants`` has each variant's overrides, the reference's first; ``stages`` are what the built-in ones change;
    ``costs`` by variant depend on ``cost_material`` (a hash), and are empty where not measured.
    """

    name: str
    variants: Mapping[str, Sequence[str]]
    seeds: tuple[int, ...]
    stages: tuple[str, ...]
    cost_material: str = ""
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    runs: Sequence[RunResult] = ()
    failed: Sequence[FailedRun] = ()

    @property
    def reference(self) -> str:
        """The variant that the others are compared with."""
        return next(iter(self.variants))

    @property
    def planned(self) -> int:
        """How many runs there are when all is done."""
        return len(self.variants) * len(self.seeds)

    @property
    def ordered(self) -> list[RunResult]:
        """The finished runs, seed by seed, whichever was computed first."""
        place = [(seed, variant) for seed in self.seeds for variant in self.variants].index
        return sorted(self.runs, key=lambda run: place((run.seed, run.variant)))

    @property
    def known(self) -> list[Metric]:
        """The metrics that at least one run has a value of."""
        return [m for m in METRICS if any(run.figures.get(m.key) is not None for run in self.runs)]

    def values(self, variant: str, key: str) -> dict[int, float]:
        """Seed -> value, for the seeds that have one, in the order of the seeds."""
        found = {run.seed: run.figures.get(key) for run in self.runs if run.variant == variant}
        return {seed: value for seed in self.seeds if (value := found.get(seed)) is not None}

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
        verdict, better = "", BY_KEY[key].better
        if found.excludes_zero and better:
            verdict = "gain" if (found.mean > 0) == (better == "more") else "loss"
        elif found.excludes_zero:
            verdict = "other"
        return Summary(len(own), mean, deviation, found.pairs, found.mean, found.low, found.high, verdict)
