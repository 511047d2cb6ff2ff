"""Made-up ablations for tests: nothing is trained."""

import random
from collections.abc import Sequence

from stages.commands.ablate.results import METRICS, Results, RunResult


def made_up_results(
    variants: Sequence[str] = ("baseline", "mea", "mea+sr"),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    finished: int | None = None,
    step: float = 0.02,
) -> Results:
    """Each variant is better than the one before by about ``step`` in every metric; ``finished`` runs of all."""
    dice = random.Random(0)
    runs = []
    for seed in seeds:
        base = dice.gauss(0.5, 0.01)
        for index, name in enumerate(variants):
            figures: dict[str, float | None] = {}
            for metric in METRICS:
                gain = index * step * (-1 if metric.better == "less" else 1)
                figures[metric.key] = base + gain + dice.gauss(0, 0.001)
            runs.append(RunResult(name, seed, f"x.{index}.s{seed}", figures))
    return Results(
        name="made-up",
        variants=tuple(variants),
        seeds=tuple(seeds),
        overrides=dict.fromkeys(variants, ("segment.mea=true",)),
        stages=("classify", "segment"),
        runs=runs[:finished],
    )
