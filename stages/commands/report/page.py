"""Fills the page templates: one HTML file with everything inside, readable without a network and without scripts.

Whatever comes from the user (class names, image ids, file names, tags) passes through the templates' automatic
escaping; nothing is marked as safe but what `charts` builds from escaped parts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stages.commands.report import charts
from stages.commands.report.gallery import ERRORS
from stages.commands.report.values import REVIEWED_BY, Values
from wsss.pictures import voc_palette


def render(template: str, **context: Any) -> str:
    """The page as text. Raises jinja2.UndefinedError for a name that the context lacks."""
    return PAGES.get_template(template).render(**context)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as percent without its sign; a dash where undefined."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """A difference of shares in points, with its sign; a dash where undefined."""
    if value is None:
        return "–"
    text = f"{100 * value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def number(value: float | None, digits: int = 3) -> str:
    """A figure that is no share."""
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds, or minutes and seconds, or hours and minutes; a dash where unknown."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def sweep_chart(values: Values) -> Markup:
    """The seed's mIoU over the background score with the points that matter, colour information beside it.

    Without ground truth there is colour information alone.
    """
    free, miou = _hundredfold(values["curve.colour_information"]), _hundredfold(values.get("curve.miou", []))
    points = [
        ("best_threshold", "best_miou", "best, chosen by this ground truth", "best"),
        ("label_free_threshold", "label_free_miou", "label-free choice", "free"),
        ("threshold", "miou", "as configured", "chosen"),
    ]
    marks = [
        (values[x], 100 * values[y], text, kind)
        for x, y, text, kind in points
        if values.get(x) is not None and values.get(y) is not None
    ]
    title, y_label, other = "mIoU of the seed over the threshold", "mIoU, %", list[float | None]()
    if miou:
        factor = max(filter(None, miou), default=1) / max(filter(None, free), default=1)
        other = [None if y is None else y * factor for y in free]
    else:
        title, y_label = "Colour information over the threshold", "colour information, 0.01 bit"
        if (x := values.get("label_free_threshold")) is not None:
            top = free[values["thresholds"].index(x)] or 0.0
            marks = [(x, top, "label-free choice", "free")]
    return charts.curve_chart(
        values["thresholds"],
        miou or free,
        title=title,
        x_label="threshold (background score)",
        y_label=y_label,
        marks=marks,
        other=other,
    )


def _hundredfold(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]


def difference_chart(lines: Sequence[Any], title: str) -> Markup:
    """Differences of shares with their intervals; lines without an interval are left out."""
    rows = [
        charts.Interval(line.title, 100 * line.difference, 100 * line.low, 100 * line.high, line.verdict)
        for line in lines
        if line.difference is not None and line.low is not None
    ]
    return charts.interval_chart(rows, title=title)


def miou_histogram(values: Values) -> Markup:
    """How the images' own mIoUs are distributed."""
    known = [100 * value for value in values["per_image.miou"] if value is not None]
    counts, _ = np.histogram(known, bins=20, range=(0, 100))
    title, x_label = "mIoU of single images", "mIoU of the image, %"
    return charts.histogram(counts.tolist(), 100, title=title, x_label=x_label)


def mostly(shares: list[float | None]) -> list[tuple[int, float]]:
    """The up to two labels with the largest shares above 0.1 %."""
    known = [(share, label) for label, share in enumerate(shares) if share and share > 0.001]
    return [(label, share) for share, label in sorted(known, reverse=True)[:2]]


PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters |= {"percent": percent, "signed": signed, "number": number, "duration": duration}
PAGES.globals |= {"sweep_chart": sweep_chart, "miou_histogram": miou_histogram, "mostly": mostly}
PAGES.globals |= {"reviewed_by": REVIEWED_BY}
PAGES.globals |= {"difference_chart": difference_chart, "errors": ERRORS, "palette": voc_palette().tolist()}
