"""The ablation as a picture: per metric a row of each variant, every seed a dot, and the paired difference.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; what they say is also told by shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from stages.commands.ablate.page import basis
from stages.commands.ablate.results import BY_KEY, Results, Summary

SHOWN = (
    "cams.miou",
    "refine.miou",
    "segment.miou",
    "segment.boundary_iou",
    "segment.failure1.missed",
    "segment.failure2.mistaken",
)
WIDTH = 1400
NAMES = 260
"""Width of the column of names."""
GAP = 40
ROW = 40
HEAD = 84
FOOT = 46
TEXT, SMALL, TITLE = 24, 20, 28
INK, SOFT, LINE = (27, 31, 36), (87, 96, 106), (208, 215, 222)
SEED = (0, 114, 178)
VERDICTS = {"gain": (0, 115, 85), "loss": (213, 94, 0), "": (107, 115, 124)}


@dataclass(frozen=True)
class _Axis:
    """Values to pixels."""

    low: float
    high: float
    left: float
    right: float

    def x(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.left + share * (self.right - self.left)


def draw_chart(results: Results) -> Image.Image:
    """(height, 1400) RGB: a panel per metric that has values; left the seeds, right the differences."""
    known = results.known_keys()
    keys = [key for key in SHOWN if key in known]
    panel = HEAD + ROW * len(results.variants) + FOOT
    canvas = Image.new("RGB", (WIDTH, 150 + panel * len(keys) + 20), "white")
    draw = ImageDraw.Draw(canvas)
    _write(draw, 30, 22, _fitting(f"Ablation {results.name}", WIDTH - 60, TITLE), TITLE)
    _write(draw, 30, 62, _fitting(basis(results), WIDTH - 60, SMALL), SMALL, SOFT)
    _legend(draw, 30, 100)
    for position, key in enumerate(keys):
        _panel(draw, results, key, 150 + panel * position)
    return canvas


def _panel(draw: ImageDraw.ImageDraw, results: Results, key: str, top: float) -> None:
    metric = BY_KEY[key]
    arrow = "more is better" if metric.better == "more" else "less is better"
    _write(draw, 30, top + 6, f"{metric.title}, % ({arrow})", TEXT)
    middle = NAMES + (WIDTH - NAMES) * 0.55
    values = [100 * v for name in results.variants for v in results.values(name, key).values()]
    left = _padded(values, NAMES, middle - GAP)
    summaries = [(name, results.summary(name, key)) for name in results.variants]
    right = _around_zero([found for _, found in summaries if found], middle + GAP, WIDTH - 50)
    bottom = top + HEAD + ROW * len(summaries)
    _write(
        draw,
        (middle + WIDTH - 10) / 2,
        top + 44,
        f"difference to {results.reference}"[:48],
        SMALL,
        SOFT,
        "ma",
    )
    _write(draw, (NAMES + middle - GAP) / 2, top + 44, "each seed", SMALL, SOFT, "ma")
    for axis, zero in ((left, False), (right, True)):
        _ticks(draw, axis, top + HEAD, bottom, signed=zero)
    for index, (name, found) in enumerate(summaries):
        y = top + HEAD + ROW * (index + 0.5)
        _write(draw, 30, y, _fitting(name, NAMES - 50, TEXT), TEXT, INK, "lm")
        for value in results.values(name, key).values():
            _dot(draw, left.x(100 * value), y, 6, SEED)
        if found:
            x = left.x(100 * found.mean)
            draw.line((x, y - 15, x, y + 15), fill=INK, width=3)
            _difference(draw, found, right, y)


def _difference(draw: ImageDraw.ImageDraw, found: Summary, axis: _Axis, y: float) -> None:
    if found.difference is None:
        return
    x, colour = axis.x(100 * found.difference), VERDICTS[found.verdict]
    if found.low is None or found.high is None:
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=colour, width=3)
        return
    low, high = axis.x(100 * found.low), axis.x(100 * found.high)
    draw.line((low, y, high, y), fill=colour, width=4)
    for end in (low, high):
        draw.line((end, y - 8, end, y + 8), fill=colour, width=4)
    _marker(draw, x, y, found.verdict)


def _marker(draw: ImageDraw.ImageDraw, x: float, y: float, verdict: str) -> None:
    """Better: a triangle upwards; worse: downwards; otherwise a circle."""
    colour, r = VERDICTS[verdict], 11
    if not verdict:
        _dot(draw, x, y, 8, colour)
        return
    tip = -r if verdict == "gain" else r
    draw.polygon([(x, y + tip), (x - r, y - tip * 0.8), (x + r, y - tip * 0.8)], fill=colour)


def _legend(draw: ImageDraw.ImageDraw, left: float, y: float) -> None:
    x = left + 8
    _dot(draw, x, y + 12, 6, SEED)
    x = _label(draw, x, y, "a seed")
    draw.line((x, y - 2, x, y + 26), fill=INK, width=3)
    x = _label(draw, x, y, "mean")
    for verdict, text in (
        ("gain", "95 % interval excludes 0: better"),
        ("loss", "worse"),
        ("", "interval includes 0"),
    ):
        _marker(draw, x, y + 12, verdict)
        x = _label(draw, x, y, text)
    draw.ellipse((x - 7, y + 5, x + 7, y + 19), outline=VERDICTS[""], width=3)
    _label(draw, x, y, "one seed: no interval")


def _label(draw: ImageDraw.ImageDraw, x: float, y: float, text: str) -> float:
    """Write beside a symbol; returns where the next symbol stands."""
    _write(draw, x + 18, y, text, SMALL)
    return x + 18 + _font(SMALL).getlength(text) + 36


def _ticks(draw: ImageDraw.ImageDraw, axis: _Axis, top: float, bottom: float, *, signed: bool) -> None:
    for value in _round_steps(axis.low, axis.high):
        x = axis.x(value)
        strong = signed and value == 0
        draw.line((x, top, x, bottom), fill=INK if strong else LINE, width=2 if strong else 1)
        _write(draw, x, bottom + 8, f"{value:+g}" if signed and value else f"{value:g}", SMALL, SOFT, "ma")


def _round_steps(low: float, high: float) -> list[float]:
    """Three to seven round numbers between the ends."""
    span = high - low
    steps = [base * 10.0**power for power in range(-4, 4) for base in (1, 2, 5)]
    step = next((step for step in steps if span / step <= 6), steps[-1])
    first = -int(-low // step) if low < 0 else int(-(-low // step))
    return [
        round(n * step, 6) for n in range(first - 1, int(high // step) + 1) if low - 1e-9 <= n * step <= high
    ]


def _padded(values: Sequence[float], left: float, right: float) -> _Axis:
    low, high = min(values), max(values)
    pad = max(0.08 * (high - low), 0.25)
    return _Axis(low - pad, high + pad, left, right)


def _around_zero(found: Sequence[Summary], left: float, right: float) -> _Axis:
    """Symmetric, as wide as the intervals, so that the eye may compare directions."""
    ends = [value for item in found for value in (item.difference, item.low, item.high) if value is not None]
    reach = max([0.5, *(110 * abs(end) for end in ends)])
    return _Axis(-reach, reach, left, right)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")


def _write(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    text: str,
    size: int,
    colour: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    draw.text((x, y), text, fill=colour, font=_font(size), anchor=anchor)


def _fitting(text: str, width: float, size: int) -> str:
    """The text, cut where it would be wider; line breaks become spaces."""
    text = " ".join(text.split())
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
