"""From finished runs to rows: means and deviations over seeds, and paired differences to the first variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.ablation.metrics import BY_KEY, METRICS, Value
from wsss.metrics.paired import mean_and_deviation, paired_difference


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
