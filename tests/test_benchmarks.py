"""The figures of benchmarks: bars, the table, and each benchmark run at a small size."""

import math

import pytest

from tests.benchmarks import BENCHMARKS, Row, run


@pytest.mark.parametrize(
    ("row", "words", "reached"),
    [
        (Row("a", 8.0, 2.0, "images/s", at_least=4.0), "≥ 4 x", True),
        (Row("a", 7.9, 2.0, "images/s", at_least=4.0), "≥ 4 x", False),
        (Row("a", 2.2, 2.0, "s", at_most=1.2), "≤ 1.2 x", True),
        (Row("a", 2.5, 2.0, "s", at_most=1.2), "≤ 1.2 x", False),
        (Row("a", 2.9, 0.1, "s", ours_at_most=3.0), "≤ 3 s", True),
        (Row("a", math.nan, 0.1, "s", ours_at_most=3.0), "≤ 3 s", False),
    ],
)
def test_a_bar_is_reached_from_its_side(row: Row, words: str, reached: bool) -> None:
    assert row.bar == (words, reached)
    assert str(row).endswith(f"| {words} | {'reached' if reached else '**missed**'} |")


def test_a_row_without_a_bar_has_none() -> None:
    assert str(Row("size", 2.0, 4.0, "KiB")) == "| size | 2 | 4 KiB | 0.5 |  |  |"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["start", "report", "unchanged"])
def test_small_benchmarks_run(name: str) -> None:
    rows = run(name, 0.01)
    assert name in BENCHMARKS
    assert all(row.ours > 0 and row.reference > 0 for row in rows)
