"""The figures of benchmarks: bars, the table, and each benchmark run at a small size."""

import math

import pytest

from tests.benchmarks import Row, run


@pytest.mark.parametrize(
    ("ours", "bar", "reached"),
    [
        (8.0, "ratio >= 4", True),
        (7.9, "ratio >= 4", False),
        (2.4, "ratio <= 1.2", True),
        (2.5, "ratio <= 1.2", False),
        (2.9, "ours <= 3", True),
        (math.nan, "ours <= 3", False),
    ],
)
def test_a_bar_is_reached_from_its_side(ours: float, bar: str, reached: bool) -> None:
    row = Row("a", ours, 2.0, "s", bar)
    assert row.reached is reached
    assert str(row).endswith(f"| {bar} | {'reached' if reached else '**missed**'} |")


def test_a_row_without_a_bar_has_none() -> None:
    assert str(Row("size", 2.0, 4.0, "KiB")) == "| size | 2 | 4 KiB | 0.5 |  |  |"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["start", "report"])
def test_small_benchmarks_run(name: str) -> None:
    rows = run(name, 0.01)
    assert all(row.ours > 0 and row.reference > 0 for row in rows)
