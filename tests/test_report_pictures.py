"""Pictures and charts of the report: the right pixels, the right places, colours that everybody can tell apart."""

import re
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2lab

from stages.commands.report import charts, page
from stages.commands.report.gallery import ERRORS, error_kinds, paint_errors
from wsss.pictures import voc_palette

MACHADO = {
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
"""Linear RGB as seen with each colour blindness (Machado, Oliveira, Fernandes; IEEE TVCG 2009, severity 1)."""


def test_error_kinds_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1, 1, 1, 255, 0]], np.uint8)
    prediction = np.array([[0, 1, 1, 0, 2, 255, 1, 255]], np.uint8)
    names = ["right", *ERRORS]
    found = [names[kind] for kind in error_kinds(truth, prediction)[0]]
    assert found[:4] == ["right", "false positive", "right", "false negative"]
    assert found[4:] == ["wrong class", "false negative", "ignored", "false positive"]


def test_error_map_paints_errors_and_keeps_the_rest_grey() -> None:
    image = np.full((1, 2, 3), (200, 100, 0), np.uint8)
    painted = paint_errors(image, error_kinds(np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8)))
    assert painted[0, 1].tolist() == list(ERRORS["false negative"])
    assert len(set(painted[0, 0].tolist())) == 1


@pytest.mark.parametrize("sight", ["normal", *MACHADO])
def test_error_colours_differ_for_every_eye(sight: str) -> None:
    matrix = np.asarray(MACHADO.get(sight, np.eye(3)))
    colours = {**ERRORS, "right, dark": (10, 10, 10), "right, light": (115, 115, 115)}
    seen = {name: seen_as(np.asarray(colour), matrix) for name, colour in colours.items()}
    for first, second in combinations(colours, 2):
        if {first, second} != {"right, dark", "right, light"}:
            assert np.linalg.norm(seen[first] - seen[second]) > 20, (first, second)  # 2.3 is just noticeable


def seen_as(colour: NDArray[np.int64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A colour in CIE Lab after a linear-light filter."""
    linear = matrix @ (colour / 255) ** 2.2
    lab: NDArray[np.float64] = rgb2lab((linear.clip(0, 1) ** (1 / 2.2))[None, None])[0, 0]
    return lab


def coordinates(path: str) -> list[tuple[str, float, float]]:
    return [(m[0], float(m[1]), float(m[2])) for m in re.findall(r"([ML])([\d.]+) ([\d.]+)", path)]


def test_a_curve_is_drawn_where_its_values_are() -> None:
    chart = charts.curve_chart([0.0, 0.5, 1.0], [0.0, 50.0, 100.0], title="t", x_label="x", y_label="y")
    points = coordinates(re.findall(r'class="line main" d="([^"]*)"', chart)[0])
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    bottom, top = charts.HEIGHT - charts.BOTTOM, charts.TOP
    assert points == [("M", left, bottom), ("L", (left + right) / 2, (bottom + top) / 2), ("L", right, top)]


def test_unknown_values_are_gaps() -> None:
    chart = charts.curve_chart(
        [0.0, 1.0, 2.0, 3.0], [1.0, None, 1.0, 2.0], title="t", x_label="x", y_label="y"
    )
    path = coordinates(re.findall(r'class="line main" d="([^"]*)"', chart)[0])
    assert [pen for pen, _, _ in path] == ["M", "M", "L"]


def test_marks_say_what_they_are() -> None:
    mark = (0.5, 40.0, "as <configured>", "chosen")
    chart = charts.curve_chart([0, 1], [0, 100], title="t", x_label="x", y_label="y", marks=[mark])
    assert "as &lt;configured&gt;: 40.0 at 0.50" in chart
    assert "<configured>" not in chart


def test_bars_are_as_high_as_their_counts() -> None:
    chart = charts.histogram([1, 0, 4], 3, title="t", x_label="x")
    heights = [float(h) for h in re.findall(r'class="bar"[^>]* height="([\d.]+)"', chart)]
    assert heights[1] == 0
    assert heights[2] == pytest.approx(4 * heights[0], rel=0.01)
    assert "1 to 2: 0 images" in chart


def test_intervals_lie_around_zero() -> None:
    rows = [charts.Interval("up", 2, 1, 3, "gain"), charts.Interval("down", -2, -3, -1, "loss")]
    chart = charts.interval_chart(rows, title="t")
    zero = float(re.findall(r'class="axis" x1="([\d.]+)"', chart)[0])
    up, down = (float(x) for x in re.findall(r'class="dot \w+" cx="([\d.]+)"', chart))
    assert up - zero == pytest.approx(zero - down, abs=0.2)
    assert up > zero
    assert chart.count("whisker") == 2


def test_an_interval_may_be_missing_and_single_differences_be_shown() -> None:
    chart = charts.interval_chart([charts.Interval("x", 1, None, None, "", dots=(0.5, 1.5))], title="t")
    left, right = (float(x) for x in re.findall(r'class="single" cx="([\d.]+)"', chart))
    middle = float(re.findall(r'class="dot " cx="([\d.]+)"', chart)[0])
    assert middle - left == pytest.approx(right - middle, abs=0.2) != 0
    assert "whisker" not in chart


def part(name: str, *values: float | None) -> str:
    """What a macro of parts.html draws."""
    macro = getattr(page.PAGES.get_template("parts.html").module, name)
    return str(macro(*values)).strip()


@pytest.mark.parametrize(
    ("count", "total", "cell"),
    [
        (5, 5, '<td style="background:rgb(8,48,107);color:#fff">100</td>'),
        (1, 4, '<td style="background:rgb(132,152,181)">25</td>'),
        (0, 5, "<td></td>"),
        (0, 0, '<td class="none"></td>'),
    ],
)
def test_confusion_is_darker_where_there_is_more_and_grey_where_undefined(
    count: int, total: int, cell: str
) -> None:
    assert part("shaded", count, total) == cell


def test_bars_have_the_width_of_their_share() -> None:
    assert part("bar", 0.25).endswith('width:25.0%"></span></span>25.0')
    assert part("bar", None) == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0.0"), (0.1234, "+12.3"), (-0.1, "−10.0"), (-0.0001, "0.0")]
)
def test_differences_carry_their_sign(value: float | None, text: str) -> None:
    assert page.signed(value) == text


def test_durations_are_read_at_a_glance() -> None:
    found = [page.duration(seconds) for seconds in (None, 0.4, 59.4, 61, 3599.6, 7500)]
    assert found == ["–", "0 s", "59 s", "1 min 01 s", "1 h 00 min", "2 h 05 min"]


def test_swatches_have_the_palette_of_voc() -> None:
    assert "rgb(128,0,0)" in part("swatch", 1)
    assert voc_palette()[15].tolist() == [192, 128, 128]


def test_the_main_mistakes_are_named_largest_first() -> None:
    assert page.mostly([0.0, 0.2, None, 0.5, 0.3, 0.0001]) == [(3, 0.5), (4, 0.3)]
