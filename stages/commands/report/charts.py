"""Charts as inline SVG: no script, no font, no file beside the page; sizes follow the page's width.

Every chart carries its title and, where it shows figures that no table repeats, a sentence for screen readers.
Colours come from the page's style sheet by class name, so that print and dark rooms are one setting.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 44


@dataclass(frozen=True)
class Mark:
    """A point of a curve worth naming.

    Attributes:
        x: position.
        y: position.
        text: what it is.
        kind: ``chosen``, ``best`` or ``free``: its colour and shape.
    """

    x: float
    y: float
    text: str
    kind: str


def curve_chart(
    xs: Sequence[float],
    ys: Sequence[float | None],
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    others: Mapping[str, Sequence[float | None]] = {},
    x_range: tuple[float, float] | None = None,
) -> Markup:
    """A curve with named points; ``others`` are thinner curves on the same axes, by name. Nulls are gaps.

    The x axis spans ``x_range``, or the values if there is none.
    """
    known = [y for y in [*ys, *(y for other in others.values() for y in other)] if y is not None]
    top = _nice_top(max([*known, *(mark.y for mark in marks)], default=1.0))
    frame = _Frame(*(x_range or (min(xs), max(xs))), 0.0, top)
    parts = [frame.axes(x_label, y_label)]
    for index, other in enumerate(others.values()):
        parts.append(Markup('<path class="line other{}" d="{}"/>').format(index % 3, frame.path(xs, other)))
    parts.append(Markup('<path class="line main" d="{}"/>').format(frame.path(xs, ys)))
    parts += [frame.mark(mark) for mark in marks]
    names = "; ".join([f"{mark.text}: {mark.y:.1f} at {mark.x:.2f}" for mark in marks])
    return _svg(title, f"{title}. {names}", parts, WIDTH, HEIGHT)


def histogram(counts: Sequence[int], edges: Sequence[float], *, title: str, x_label: str) -> Markup:
    """Bars of how many images fall between ``edges``."""
    frame = _Frame(edges[0], edges[-1], 0.0, _nice_top(max([1, *counts])))
    parts = [frame.axes(x_label, "images")]
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        left, right, y = frame.x(low) + 1, frame.x(high) - 1, frame.y(count)
        parts.append(
            Markup(
                '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(left, y, right - left, frame.y(0) - y, f"{low:g} to {high:g}: {count} images")
        )
    text = ", ".join(
        f"{low:g} to {high:g}: {n}" for n, low, high in zip(counts, edges, edges[1:], strict=False)
    )
    return _svg(title, f"{title}. {text}", parts, WIDTH, HEIGHT)


def confusion_chart(
    shares: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], title: str
) -> Markup:
    """A confusion matrix as a picture: shares in [0, 1] per row, darker for more; figures where there is room."""
    height, width = shares.shape
    cell = max(8, min(44, 560 // max(width, 1)))
    margin = 10 + round(6.2 * max(len(name) for name in [*rows, *columns]))
    margin = min(margin, 170)
    picture = Markup(
        '<image href="{}" x="{}" y="{}" width="{}" height="{}" preserveAspectRatio="none" '
        'style="image-rendering:pixelated"/>'
    ).format(png_uri(_shaded(shares)), margin, margin, cell * width, cell * height)
    parts = [picture]
    size = min(11, cell + 1)
    for index, name in enumerate(rows):
        parts.append(_text(margin - 5, margin + cell * (index + 0.5) + size / 3, _cut(name), "end", size))
    for index, name in enumerate(columns):
        x = margin + cell * (index + 0.5) + size / 3
        turn = Markup(' transform="rotate(-90 {:.1f} {:.1f})"').format(x, margin - 5.0)
        parts.append(_text(x, margin - 5, _cut(name), "start", size, turn))
    if cell >= 26:
        parts += _cell_figures(shares, margin, cell)
    side = (margin + cell * width + 8, margin + cell * height + 8)
    return _svg(title, f"{title}; the table of the classes gives the main figures.", parts, *side, limit=True)


@dataclass(frozen=True)
class Interval:
    """A difference with its interval, in points; ``kind`` is ``gain``, ``loss`` or empty: its colour."""

    name: str
    value: float
    low: float
    high: float
    kind: str


def interval_chart(rows: Sequence[Interval], *, title: str, width: float = WIDTH) -> Markup:
    """Differences as dots on whiskers, one row each, around a line at zero; less ``width`` makes text larger."""
    reach = _nice_top(max([0.1, *(abs(end) for row in rows for end in (row.low, row.high))]))
    left, step = 24 + 6.2 * max([0, *(len(_cut(row.name)) for row in rows)]), 20
    height = step * len(rows) + 34

    def x(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (width - left - RIGHT)

    parts = []
    for tick in (-reach, -reach / 2, 0, reach / 2, reach):
        line = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="0" y2="{}"/>')
        parts.append(line.format("axis" if tick == 0 else "grid", x(tick), x(tick), height - 30))
        parts.append(_text(x(tick), height - 14, f"{tick:+g}" if tick else "0", "middle", 12))
    for index, row in enumerate(rows):
        y = step * (index + 0.5)
        parts.append(_text(left - 8, y + 4, _cut(row.name), "end", 12))
        whisker = Markup(
            '<line class="whisker {}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
            '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
        )
        text = f"{row.name}: {row.value:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
        parts.append(whisker.format(row.kind, x(row.low), x(row.high), y, y, row.kind, x(row.value), y, text))
    return _svg(title, f"{title}; the table beside it gives the figures.", parts, width, height)


def png_uri(picture: Image.Image) -> str:
    """A picture as a ``data:`` address."""
    return data_uri(picture, "PNG", optimize=True)


def data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    """A picture encoded by Pillow's format name, as a ``data:`` address."""
    buffer = BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class _Frame:
    """Axes: data coordinates to SVG coordinates."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / ((self.y_high - self.y_low) or 1)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def path(self, xs: Sequence[float], ys: Sequence[float | None]) -> str:
        pieces, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None:
                pen = "M"
                continue
            pieces.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
            pen = "L"
        return "".join(pieces)

    def axes(self, x_label: str, y_label: str) -> Markup:
        parts = []
        for step in range(6):
            value = self.y_low + (self.y_high - self.y_low) * step / 5
            y = self.y(value)
            parts.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                    LEFT, WIDTH - RIGHT, y, y
                )
            )
            parts.append(_text(LEFT - 6, y + 4, f"{value:g}", "end", 12))
            value = self.x_low + (self.x_high - self.x_low) * step / 5
            parts.append(_text(self.x(value), HEIGHT - BOTTOM + 16, f"{value:.3g}", "middle", 12))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle", 13))
        turn = Markup(' transform="rotate(-90 12 {})"').format((TOP + HEIGHT - BOTTOM) / 2)
        parts.append(_text(12, (TOP + HEIGHT - BOTTOM) / 2, y_label, "middle", 13, turn))
        return Markup("").join(parts)

    def mark(self, mark: Mark) -> Markup:
        x, y = self.x(mark.x), self.y(mark.y)
        return Markup(
            '<line class="drop {}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
            '<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>'
        ).format(
            mark.kind,
            x,
            x,
            y,
            self.y(self.y_low),
            mark.kind,
            x,
            y,
            f"{mark.text}: {mark.y:.1f} at {mark.x:.2f}",
        )


def _svg(
    title: str, text: str, parts: Sequence[Markup], width: float, height: float, limit: bool = False
) -> Markup:
    style = Markup(' style="max-width:{:.0f}px"').format(width) if limit else ""
    return Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}"{}><title>{}</title>{}</svg>'
    ).format(text, width, height, style, title, Markup("").join(parts))


def _text(x: float, y: float, text: str, anchor: str, size: float, more: Markup | str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-size="{:g}"{}>{}</text>').format(
        x, y, anchor, size, more, text
    )


def _cell_figures(shares: NDArray[np.float64], margin: float, cell: float) -> list[Markup]:
    figures = []
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share) and share >= 0.005:
            x, y = margin + cell * (column + 0.5), margin + cell * (row + 0.5) + 4
            shade = "light" if share > 0.5 else "dark"
            figures.append(
                Markup(
                    '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="middle" font-size="11">{:.0f}</text>'
                ).format(shade, x, y, 100 * share)
            )
    return figures


def _shaded(shares: NDArray[np.float64]) -> Image.Image:
    """White to dark blue, one pixel a cell; undefined rows are grey. The square root lifts rare confusions."""
    strength = np.sqrt(np.nan_to_num(shares).clip(0, 1))[..., None]
    colours = np.array([255, 255, 255]) * (1 - strength) + np.array([8, 48, 107]) * strength
    colours[~np.isfinite(shares)] = 225
    return Image.fromarray(colours.round().astype(np.uint8))


def _cut(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def _nice_top(value: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten (or 2.5) that is not below the value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 2.5, 4, 5, 6, 8, 10) if step * power >= value - 1e-12))
