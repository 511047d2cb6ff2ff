"""What an ablation leaves: ablation.json (docs/ablation.md), ablation.html, and a table on the terminal."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.commands.ablate.results import BY_KEY, METRICS, STAGES, Results, Summary
from stages.commands.report.charts import Interval, interval_chart
from stages.commands.report.page import duration, percent, render, signed
from stages.commands.report.values import STAGE_TITLES
from stages.commands.terminal import aligned
from wsss.store.files import write_json, write_text

MAIN = ("segment.miou", "refine.miou", "cams.miou")
"""The figure that matters most comes first; a data set may have no masks for it."""
CHARTS = (*MAIN, "segment.boundary_iou", "segment.failure1.missed", "segment.failure2.mistaken")
COLUMNS = (
    ("cams.miou", "CAM seed"),
    ("cams.best_miou", "at best"),
    ("refine.miou", "pseudo-masks"),
    ("segment.miou", "validation"),
    ("segment.boundary_iou", "boundary"),
    ("segment.failure1.missed", "F1 missed"),
    ("segment.failure2.mistaken", "F2 mistaken"),
)
"""Metrics on the terminal, with their headings; the page has all."""
COSTS: Mapping[str, tuple[str, str]] = {
    "step_ms": ("ms a step", "ms per training step"),
    "step_ratio": ("of plain", "against the plain step"),
    "inference_ms": ("ms inference", "ms of inference"),
    "parameters": ("parameters", "deployed parameters"),
    "exit_parameters": ("of exits", "parameters of the exits"),
    "multiply_adds": ("multiply-adds", "deployed multiply-adds"),
    "exit_multiply_adds": ("of exits", "multiply-adds of the exits"),
}
"""By key: heading on the terminal, and on the page."""
ONE_SEED = "One seed: no interval, and no way to tell a difference from chance."


def write_outputs(folder: Path, results: Results) -> None:
    """Write ablation.json and ablation.html into the folder of the ablation."""
    write_json(folder / "ablation.json", as_json(results))
    write_text(folder / "ablation.html", as_page(results))


def as_json(results: Results) -> dict[str, Any]:
    """The whole ablation as plain values; docs/ablation.md describes every key."""
    metrics = {m.key: {"title": m.title, "better": m.better, "unit": m.unit} for m in METRICS}
    summary = {
        name: {m.key: asdict(found) for m in results.known if (found := results.summary(name, m.key))}
        for name in results.variants
    }
    return {
        "schema": 1,
        "name": results.name,
        "reference": results.reference,
        "seeds": list(results.seeds),
        "stages": list(results.stages),
        "variants": {name: list(overrides) for name, overrides in results.variants.items()},
        "runs_planned": results.planned,
        "runs": [asdict(run) for run in results.ordered],
        "failed": [asdict(run) for run in results.failed],
        "metrics": metrics,
        "summary": summary,
        "excludes_zero": certain_sentences(results),
        "cost": {name: dict(cost) for name, cost in results.costs.items()} or None,
        "cost_material": results.cost_material if results.costs else None,
    }


def as_page(results: Results) -> str:
    """The ablation as one HTML page."""
    known = {metric.key for metric in results.known}
    return render(
        "ablation.html",
        results=results,
        basis=basis(results),
        certain=certain_sentences(results),
        one_seed=ONE_SEED,
        charts=[chart for key in CHARTS if key in known and (chart := difference_chart(results, key))],
        stages=STAGE_TITLES,
        run_metrics=[BY_KEY[key] for key in MAIN if key in known],
        costs=[heading for _, heading in COSTS.values()],
        cost_rows=_cost_rows(results),
        training_time=lambda variant: training_time(results, variant),
    )


def as_text(results: Results) -> str:
    """Means and deviations in percent, the main metric's difference, training time; below, the costs."""
    known = {metric.key for metric in results.known}
    columns = [(key, heading) for key, heading in COLUMNS if key in known]
    main = [key for key in MAIN if key in known][:1]
    against = [f"{BY_KEY[key].title}, against {_cut(results.reference)}" for key in main]
    rows = [["variant", *(heading for _, heading in columns), *against, "training"]]
    for variant in results.variants:
        cells = [figure(results.summary(variant, key)) for key, _ in columns]
        cells += [difference(results.summary(variant, key)) for key in main]
        rows.append([_cut(variant), *cells, training_time(results, variant)])
    starred = "* the 95 % interval (paired t over training seeds, the same images) excludes 0"
    lines = [basis(results), "", aligned(rows), starred if len(results.seeds) > 1 else ONE_SEED]
    if results.costs:
        headings = ["variant", *(heading for heading, _ in COSTS.values())]
        lines += ["", aligned([headings, *([_cut(name), *cells] for name, cells in _cost_rows(results))])]
    return "\n".join(lines)


def basis(results: Results) -> str:
    """How many runs the figures rest on."""
    seeds = f"seed{'s' if len(results.seeds) > 1 else ''} {', '.join(map(str, results.seeds))}"
    text = f"{len(results.runs)} of {results.planned} runs: {len(results.variants)} variants, {seeds}"
    if results.failed:
        text += f"; {len(results.failed)} failed"
    if len(results.runs) + len(results.failed) < results.planned:
        text += "; not finished, rerun the same command to resume"
    return text


def certain_sentences(results: Results) -> list[str]:
    """One sentence per variant: in which figures its interval excludes 0, and in which direction."""
    sentences = []
    for variant in list(results.variants)[1:]:
        found: dict[str, dict[str, list[str]]] = {"gain": {}, "loss": {}}
        for metric in results.known:
            summary = results.summary(variant, metric.key)
            if summary and summary.verdict in found:
                found[summary.verdict].setdefault(STAGES[metric.stage], []).append(metric.short)
        parts = [
            f"{word} in " + ", ".join(f"{stage} ({', '.join(names)})" for stage, names in stages.items())
            for word, stages in (("better", found["gain"]), ("worse", found["loss"]))
            if stages
        ]
        if parts:
            sentences.append(f"{variant}: {'; '.join(parts)}.")
    return sentences


def difference_chart(results: Results, key: str) -> tuple[str, str] | None:
    """A metric's title, and the variants' differences in points with their intervals; None where there is none yet."""
    rows, first = [], results.values(results.reference, key)
    for variant in list(results.variants)[1:]:
        found, own = results.summary(variant, key), results.values(variant, key)
        if found and found.difference is not None and found.low is not None and found.high is not None:
            value, low, high = (100 * end for end in (found.difference, found.low, found.high))
            dots = [100 * (own[seed] - first[seed]) for seed in own if seed in first]
            rows.append(Interval(variant, value, low, high, found.verdict, dots))
    title = BY_KEY[key].title
    chart = interval_chart(rows, title=f"{title}: difference to {results.reference}, points", width=440)
    return (title, chart) if rows else None


def figure(summary: Summary | None) -> str:
    """Mean and deviation in percent; a dash where there is none."""
    if summary is None:
        return "-"
    return percent(summary.mean) + (f" ± {percent(summary.sd)}" if summary.sd is not None else "")


def difference(summary: Summary | None) -> str:
    """Difference and interval in points, with a star where it excludes 0."""
    if summary is None or summary.difference is None:
        return "-"
    if summary.low is None:
        return f"{signed(summary.difference)} (one seed: no interval)"
    text = f"{signed(summary.difference)} [{signed(summary.low)}, {signed(summary.high)}]"
    return text + (" *" if summary.verdict else "")


def training_time(results: Results, variant: str) -> str:
    """Mean recorded time of both training stages together."""
    found = [results.summary(variant, f"{stage}.seconds") for stage in ("classify", "segment")]
    known = [summary.mean for summary in found if summary]
    return duration(sum(known)) if known else "-"


def _cost_rows(results: Results) -> list[tuple[str, list[str]]]:
    """Each variant's costs in their units; a dash where one was not measured."""
    costs = {name: results.costs.get(name, {}) for name in results.variants}
    return [(name, [_cost(key, found.get(key)) for key in COSTS]) for name, found in costs.items()]


def _cost(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.startswith(("step", "inference")):
        return f"{value:.{2 if key == 'step_ratio' else 1}f}"
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f}"


def _cut(name: str) -> str:
    """A variant's name in one line of at most 28 characters."""
    name = " ".join(name.split())
    return name if len(name) <= 28 else f"{name[:27]}…"
