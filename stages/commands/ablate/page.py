"""The ablation's words: how much it rests on, what its intervals say, which exclude 0.

The ablation as a table on the terminal.

An ablation as plain values (ablation.json, docs/ablation.md) and as one HTML page.

What an ablation leaves: ablation.json for programs, ablation.html and ablation.png for people.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stages import software_versions
from stages.commands.ablate.results import BY_KEY, METRICS, STAGES, Metric, Results, Summary
from stages.commands.report.charts import Interval, interval_chart
from stages.commands.report.page import duration, percent, render, signed
from stages.commands.report.wording import STAGE_TITLES
from stages.commands.terminal import aligned
from wsss.config import Config, RunConfig, to_tree
from wsss.store.files import atomic_path, write_text
from wsss.store.json_files import canonical_json

MAIN = ("segment.miou", "refine.miou", "cams.miou")
"""The figure that matters most comes first; a data set may have no masks for it."""
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
INTERVALS = (
    "Every difference is paired: a variant's run minus the first variant's run with the same seed. Intervals are 95 % "
    "intervals of Student's t over training seeds, all on the same photographs: they say what other seeds could "
    "change, and nothing about other photographs. With so few seeds they are wide, and take the differences as "
    "normal. Where many rows and figures are looked at, about one interval in twenty excludes 0 by chance."
)
UNITS = ((" G", 1e9), (" M", 1e6), (" k", 1e3))
ONE_SEED = "One seed: no interval, and no way to tell a difference from chance."


def basis(results: Results) -> str:
    """How many runs the table rests on."""
    text = f"{len(results.runs)} of {results.planned} runs: {_seeds(results)}"
    if results.failed:
        text += f"; {len(results.failed)} failed"
    if len(results.runs) + len(results.failed) < results.planned:
        text += "; not finished, the same command goes on"
    return text


def main_metric(results: Results) -> str | None:
    """The mIoU of the latest stage that has one."""
    known = results.known_keys()
    return next((key for key in MAIN if key in known), None)


def sure_sentences(results: Results) -> list[str]:
    """One sentence per variant: in which figures its interval excludes 0, and in which direction."""
    sentences = []
    for variant in results.variants[1:]:
        found: dict[str, dict[str, list[str]]] = {"gain": {}, "loss": {}}
        for metric in map(BY_KEY.__getitem__, results.known_keys()):
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


def cost_text(results: Results, variant: str, key: str) -> str:
    """A cost in its unit; a dash where it was not measured."""
    value = results.costs.get(variant, {}).get(key)
    if value is None:
        return "-"
    if key == "step_ratio":
        return f"{value:.2f}"
    if key.endswith("_ms"):
        return f"{value:.1f}"
    unit, factor = next((pair for pair in UNITS if value >= pair[1]), ("", 1.0))
    return f"{value / factor:.2f}{unit}" if unit else f"{value:.0f}"


def _seeds(results: Results) -> str:
    count = len(results.seeds)
    listed = ", ".join(map(str, results.seeds))
    return f"{len(results.variants)} variants, seed{'s' if count > 1 else ''} {listed}"


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


def as_text(results: Results) -> str:
    """Means and deviations in percent, the main metric's difference, training time; below, the costs."""
    lines = [basis(results), ""]
    known = results.known_keys()
    columns = [(key, heading) for key, heading in COLUMNS if key in known]
    main = main_metric(results)
    against = f"{BY_KEY[main].title}, against {_cut(results.reference)}" if main else ""
    rows = [["variant", *(heading for _, heading in columns), *([against] if main else []), "training"]]
    for variant in results.variants:
        cells = [figure(results.summary(variant, key)) for key, _ in columns]
        if main:
            cells.append(difference(results.summary(variant, main)))
        rows.append([_cut(variant), *cells, training_time(results, variant)])
    lines.append(aligned(rows))
    starred = "* the 95 % interval (paired t over training seeds, the same photographs) excludes 0"
    lines.append(starred if len(results.seeds) > 1 else ONE_SEED)
    if results.costs:
        lines += ["", aligned(_cost_rows(results))]
    return "\n".join(lines)


def figure(summary: Summary | None) -> str:
    """Mean and deviation in percent; a dash where there is none."""
    if summary is None:
        return "-"
    return percent(summary.mean) + (f" ± {percent(summary.sd)}" if summary.sd is not None else "")


def difference(summary: Summary | None) -> str:
    """Difference and interval in points, with a star where it excludes 0."""
    if summary is None or summary.difference is None:
        return "-"
    if summary.low is None or summary.high is None:
        return f"{signed(summary.difference)} (one seed: no interval)"
    text = f"{signed(summary.difference)} [{signed(summary.low)}, {signed(summary.high)}]"
    return text + (" *" if summary.verdict else "")


def training_time(results: Results, variant: str) -> str:
    """Mean recorded time of both training stages together."""
    found = [results.summary(variant, key) for key in ("classify.seconds", "segment.seconds")]
    known = [summary.mean for summary in found if summary]
    return duration(sum(known)) if known else "-"


def _cost_rows(results: Results) -> list[list[str]]:
    keys = [key for key in COSTS if any(key in cost for cost in results.costs.values())]
    rows = [["variant", *(COSTS[key][0] for key in keys)]]
    for variant in results.variants:
        rows.append([_cut(variant), *(cost_text(results, variant, key) for key in keys)])
    return rows


def _cut(name: str) -> str:
    """A variant's name in one line of at most 28 characters."""
    name = " ".join(name.split())
    return name if len(name) <= 28 else f"{name[:27]}…"


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


@dataclass(frozen=True)
class Outputs:
    """Where they lie, and what costs depend on.

    Attributes:
        folder: of the ablation; no run, unless somebody gives a run the same name: files of both have their own names.
        machine: device and precision that costs are measured with.
        configs: by variant.
        classes: of the data.
    """

    folder: Path
    machine: RunConfig
    configs: Mapping[str, Config]
    classes: int

    @property
    def values_file(self) -> Path:
        """For programs."""
        return self.folder / "ablation.json"

    def write(self, results: Results, *, measure_costs: bool = False) -> Results:
        """Write all three anew.

        Args:
            results: so far.
            measure_costs: measure what the variants cost, unless that is known.

        Returns:
            The results with costs: those measured now, or kept from an earlier time where nothing has changed.
        """
        material = self._cost_material()
        costs = self._kept_costs(material)
        if measure_costs and not costs:
            from stages.commands.ablate.cost import variant_costs

            print("\nmeasuring what the variants cost", flush=True)
            costs = variant_costs(self.configs, self.classes)
        results = replace(results, costs=costs)
        values = as_json(results) | {"cost_material": material if costs else None}
        write_text(self.values_file, json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1))
        write_text(self.folder / "ablation.html", as_page(results))
        with atomic_path(self.folder / "ablation.png") as temporary:
            from stages.commands.ablate.chart import draw_chart

            draw_chart(results).save(temporary, format="PNG", optimize=True)
        return results

    def text(self, results: Results) -> str:
        """The table for the terminal, and where the files are."""
        paths = [str(self.folder / name) for name in ("ablation.html", "ablation.png", "ablation.json")]
        return "\n".join([as_text(results), "", *paths])

    def _cost_material(self) -> str:
        """Hash of all that the costs depend on, as far as it is known here."""
        trees = {name: _sections(config) for name, config in self.configs.items()}
        parts = [trees, self.classes, self.machine.device, self.machine.precision, software_versions()]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]

    def _kept_costs(self, material: str) -> dict[str, dict[str, float]]:
        try:
            before = json.loads(self.values_file.read_text(encoding="utf-8"))
            return dict(before["cost"]) if before["cost_material"] == material else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _sections(config: Config) -> dict[str, Any]:
    return {name: to_tree(getattr(config, name)) for name in ("classify", "segment")}
