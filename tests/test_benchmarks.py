"""What benchmarks share: bars, the table, the file between a benchmark and `make bench`."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import BENCHMARKS
from benchmarks.prepared import enlarged
from benchmarks.rows import Row, read, report, table
from data import open_dataset
from tests.trees import make_folder_tree

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("value", "bar", "at_least", "passed"),
    [
        (4.0, 4.0, True, True),
        (3.9, 4.0, True, False),
        (1.1, 1.1, False, True),
        (1.2, 1.1, False, False),
        (math.nan, 1.0, True, False),
        (math.nan, 1.0, False, False),
        (7.0, None, True, None),
    ],
)
def test_a_bar_is_reached_from_its_side(
    value: float, bar: float | None, at_least: bool, passed: bool | None
) -> None:
    assert Row("what", value, "x", bar, at_least).passed is passed


def test_rows_survive_the_way_through_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("speed", 4.5, "x", 4.0), Row("memory", 1.2, "x", 1.1, at_least=False), Row("time", 3.0, "s")]
    report(rows, {"anything": [1, 2]}, tmp_path / "figures.json")
    assert read(tmp_path / "figures.json") == rows
    assert capsys.readouterr().out.strip() == table(rows)
    assert table(rows).splitlines()[2:] == [
        "| speed | 4.5 x | ≥ 4 x | reached |",
        "| memory | 1.2 x | ≤ 1.1 x | **missed** |",
        "| time | 3 s |  |  |",
    ]


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_make_bench_knows_what_there_is(name: str) -> None:
    assert importlib.util.find_spec(BENCHMARKS[name][0]) is not None
    assert '"--json"' in (ROOT / "benchmarks" / "prepared.py").read_text() + _source(name)


def _source(name: str) -> str:
    return (ROOT / "benchmarks" / f"{BENCHMARKS[name][0].rpartition('.')[2]}.py").read_text()


def test_enlarged_photographs_keep_their_masks(tmp_path: Path) -> None:
    dataset = open_dataset(make_folder_tree(tmp_path / "data"))
    samples = dataset.split("train").samples[:2]
    copies = enlarged(samples, 96, tmp_path / "large")
    for sample, copy in zip(samples, copies, strict=True):
        assert copy.id == sample.id
        assert copy.size == (72, 96)
        assert sample.mask is not None
        assert copy.mask is not None
        np.testing.assert_array_equal(copy.mask.read()[::2, ::2], sample.mask.read())
        with Image.open(copy.image) as photograph:
            assert photograph.size == (96, 72)
