"""Charts as inline SVG: no script, no font, no file beside the page; sizes follow the page's width.

Every chart carries its title and, where it shows figures that no table repeats, a sentence for screen readers.
Colours come from the page's style sheet by class name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44
Values = Sequence[float | None]


Mark = tuple[float, float, str, str]
"""A point of a curve worth naming: x, y, text, and ``chosen``, ``best`` or ``free``, its colour."""


def curve_chart(
    xs: Sequence[float],
    ys: Values,
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    other: Values = (),
) -> Markup:
    """A curve over x in [0, 1] with named points; ``other`` is a dashed curve on the same axes. None is a gap."""
    known = [y for y in (*ys, *other, *(y for _, y, *_ in marks)) if y is not None]
    frame = _Frame(1.0, _round_up(max(known, default=1)))
    parts = frame.axes(x_label, y_label)
    if other:
        parts.append(_tag("path", class_="line other", d=frame.path(xs, other)))
    parts.append(_tag("path", class_="line main", d=frame.path(xs, ys)))
    names = []
    for at_x, at_y, text, kind in marks:
        x, y, name = frame.x(at_x), frame.y(at_y), f"{text}: {at_y:.1f} at {at_x:.2f}"
        parts.append(_tag("line", class_=f"drop {kind}", x1=x, x2=x, y1=y, y2=frame.y(0)))
        parts.append(_tag("circle", _tag("title", name), class_=f"mark {kind}", cx=x, cy=y, r=5))
        names.append(name)
    return _svg(title, f"{title}. {'; '.join(names)}", parts, WIDTH, HEIGHT)


def histogram(counts: Sequence[int], top: float, *, title: str, x_label: str) -> Markup:
    """Bars of how many images fall into equal parts of 0 to ``top``."""
    frame, step = _Frame(top, _round_up(max([1, *counts]))), top / len(counts)
    parts, texts = frame.axes(x_label, "images"), []
    for index, count in enumerate(counts):
        low, high, y = index * step, (index + 1) * step, frame.y(count)
        texts.append(f"{low:g} to {high:g}: {count}")
        bar = _tag("title", f"{texts[-1]} images")
        size = {"width": frame.x(step) - frame.x(0) - 2, "height": frame.y(0) - y}
        parts.append(_tag("rect", bar, class_="bar", x=frame.x(low) + 1, y=y, **size))
    return _svg(title, f"{title}. {', '.join(texts)}", parts, WIDTH, HEIGHT)


@dataclass(frozen=True)
class Interval:
    """A difference in points, its interval if there is one, and single differences, such as one per seed.

    ``kind`` is ``gain``, ``loss`` or empty: the colour.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    kind: str
    dots: Sequence[float] = ()


def interval_chart(rows: Sequence[Interval], *, title: str, width: float = WIDTH) -> Markup:
    """Differences with their intervals, a row each, around a line at zero; less ``width`` makes text larger."""
    ends = [abs(end) for row in rows for end in (row.value, row.low, row.high, *row.dots) if end is not None]
    reach = _round_up(max([0.1, *ends]))
    names = [row.name if len(row.name) <= 26 else f"{row.name[:25]}…" for row in rows]
    left, step = 24 + 6.2 * max(map(len, names), default=0), 20
    height = step * len(rows) + 34

    def x(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (width - left - RIGHT)

    parts = []
    for tick in (-reach, -reach / 2, 0.0, reach / 2, reach):
        grid = "axis" if tick == 0 else "grid"
        parts.append(_tag("line", class_=grid, x1=x(tick), x2=x(tick), y1=0, y2=height - 30))
        parts.append(_text(x(tick), height - 14, f"{tick:+g}" if tick else "0", "middle", 12))
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        y, text = step * (index + 0.5), f"{row.name}: {row.value:+.1f}"
        parts.append(_text(left - 8, y + 4, name, "end", 12))
        if row.low is not None and row.high is not None:
            text += f" ({row.low:+.1f} to {row.high:+.1f})"
            ends_at = {"x1": x(row.low), "x2": x(row.high), "y1": y, "y2": y}
            parts.append(_tag("line", "", class_=f"whisker {row.kind}", **ends_at))
        parts += [_tag("circle", class_="single", cx=x(dot), cy=y, r=2.5) for dot in row.dots]
        parts.append(
            _tag("circle", _tag("title", text), class_=f"dot {row.kind}", cx=x(row.value), cy=y, r=4)
        )
    return _svg(title, f"{title}; the table beside it gives the figures.", parts, width, height)


@dataclass(frozen=True)
class _Frame:
    """Axes from 0: data coordinates to SVG coordinates."""

    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + value / self.x_high * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.y_high * (HEIGHT - TOP - BOTTOM)

    def path(self, xs: Sequence[float], ys: Values) -> str:
        pieces, pen = "", "M"
        for x, y in zip(xs, ys, strict=True):
            pieces += "" if y is None else f"{pen}{self.x(x):.1f} {self.y(y):.1f}"
            pen = "M" if y is None else "L"
        return pieces

    def axes(self, x_label: str, y_label: str) -> list[Markup]:
        parts = []
        for step in range(6):
            x, y = self.x_high * step / 5, self.y_high * step / 5
            parts.append(_tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=self.y(y), y2=self.y(y)))
            parts.append(_text(LEFT - 6, self.y(y) + 4, f"{y:g}", "end", 12))
            parts.append(_text(self.x(x), HEIGHT - BOTTOM + 16, f"{x:.3g}", "middle", 12))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle", 13))
        parts.append(_text(12, middle, y_label, "middle", 13, transform=f"rotate(-90 12 {middle})"))
        return parts


def _tag(name: str, content: str = "", **attributes: object) -> Markup:
    """An element; texts are escaped, floats have one decimal, and ``_`` stands for ``-`` (``class_`` for class)."""
    words = Markup("")
    for key, value in attributes.items():
        text = f"{value:.1f}" if isinstance(value, float) else value
        words += Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), text)
    return Markup("<{}{}>{}</{}>").format(name, words, content, name)


def _text(x: float, y: float, text: str, anchor: str, size: int, **more: str) -> Markup:
    return _tag("text", text, **more, x=x, y=y, text_anchor=anchor, font_size=size)


def _svg(title: str, text: str, parts: Sequence[Markup], width: float, height: float) -> Markup:
    content = _tag("title", title) + Markup("").join(parts)
    return _tag("svg", content, role="img", aria_label=text, viewBox=f"0 0 {width:.0f} {height:.0f}")


def _round_up(value: float) -> float:
    """The smallest of 1, 2, 2.5, 4, 5, 6, 8 times a power of ten that is not below the value; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 6, 8, 10) if step * power >= value - 1e-12)
