"""The ablation as a table on the terminal."""

from stages.ablation.metrics import BY_KEY
from stages.ablation.results import Results, Summary
from stages.ablation.wording import COSTS, ONE_SEED, basis, cost_text, main_metric
from stages.tables import aligned
from wsss.report.page import duration, percent, signed

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
