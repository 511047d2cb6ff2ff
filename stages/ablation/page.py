"""An ablation as plain values (ablation.json, docs/ablation.md) and as one HTML page."""

from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from stages.ablation.metrics import BY_KEY, METRICS, Metric
from stages.ablation.results import Results, Summary
from stages.ablation.table import training_time
from stages.ablation.wording import (
    COSTS,
    INTERVALS,
    MAIN,
    ONE_SEED,
    basis,
    cost_text,
    sure_sentences,
)
from stages.quality.wording import STAGE_TITLES
from wsss.report.charts import Interval, interval_chart
from wsss.report.page import render

SCHEMA = 1
"""Of ablation.json: raised when a key changes its meaning."""


@dataclass(frozen=True)
class Block:
    """What the page says about one stage: its metrics, and each variant's row of summaries."""

    title: str
    metrics: list[Metric]
    rows: list[tuple[str, list[Summary | None]]]


def as_json(results: Results) -> dict[str, Any]:
    """The whole ablation as plain values; docs/ablation.md describes every key."""
    keys = results.known_keys()
    return {
        "schema": SCHEMA,
        "name": results.name,
        "reference": results.reference,
        "seeds": list(results.seeds),
        "stages": list(results.stages),
        "variants": {name: list(results.overrides[name]) for name in results.variants},
        "runs_planned": results.planned,
        "runs": [asdict(run) for run in results.ordered],
        "failed": [asdict(run) for run in results.failed],
        "metrics": {
            metric.key: {"title": metric.title, "better": metric.better, "unit": metric.unit}
            for metric in METRICS
        },
        "summary": {
            name: {key: asdict(found) for key in keys if (found := results.summary(name, key))}
            for name in results.variants
        },
        "excludes_zero": sure_sentences(results),
        "cost": {name: dict(cost) for name, cost in results.costs.items()} or None,
    }


def as_page(results: Results) -> str:
    """The ablation as one HTML page."""
    costs = [key for key in COSTS if any(key in cost for cost in results.costs.values())]
    shown = [key for key in MAIN if key in results.known_keys()]
    return render(
        "ablation.html",
        results=results,
        basis=basis(results),
        intervals=INTERVALS if len(results.seeds) > 1 else ONE_SEED,
        sure=sure_sentences(results),
        charts=[(BY_KEY[key].title, chart) for key in shown if (chart := difference_chart_of(results, key))],
        blocks=blocks(results),
        times={variant: training_time(results, variant) for variant in results.variants},
        run_metrics=[BY_KEY[key] for key in shown],
        costs=[COSTS[key][1] for key in costs],
        cost_rows=[(name, [cost_text(results, name, key) for key in costs]) for name in results.variants],
    )


def blocks(results: Results) -> list[Block]:
    """A block per stage that has figures."""
    known = [BY_KEY[key] for key in results.known_keys() if BY_KEY[key].unit == "share"]
    found = []
    for stage, title in STAGE_TITLES.items():
        metrics = [metric for metric in known if metric.stage == stage]
        rows = [
            (name, [results.summary(name, metric.key) for metric in metrics]) for name in results.variants
        ]
        if metrics:
            found.append(Block(title, metrics, rows))
    return found


def difference_chart_of(results: Results, key: str) -> Markup | None:
    """The variants' differences in points with their intervals; None where there is no interval yet."""
    rows = []
    for variant in results.variants[1:]:
        found = results.summary(variant, key)
        if found and found.difference is not None and found.low is not None and found.high is not None:
            points = [100 * value for value in (found.difference, found.low, found.high)]
            rows.append(Interval(variant, points[0], points[1], points[2], found.verdict))
    title = f"{BY_KEY[key].title}: difference to {results.reference}, points"
    return interval_chart(rows, title=title, width=440) if rows else None
