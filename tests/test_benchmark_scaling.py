from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cost_model import BYTES, COMMANDS, SECONDS, Cost, Workload, fit, per_image, readable_bytes
from benchmarks.rows import report
from benchmarks.scaling import (
    calibration,
    extrapolation,
    figures,
    memory_rows,
    memory_table,
    read_json,
    sized,
)
from benchmarks.scaling_runs import MIB, Usage, make_data
from data import open_dataset
from wsss.config import DataConfig

SMALL = Workload(
    train=32, val=8, megapixels=0.2, tags=2.0, scales=(1.0, 0.5), crops=(100, 200), epochs=(3, 1)
)


def usage(peak: float) -> Usage:
    return Usage(seconds=2.0, cpu=1.0, peak=peak, peak_sum=peak, disk=5.0, bytes=4.0)


def test_drivers_of_a_small_workload_by_hand() -> None:
    assert SMALL.area == 2 * (1 + 0.25)
    assert (SMALL.views(0), SMALL.views(1)) == (96, 32)
    drivers = SECONDS["classify"]
    assert drivers["Mpx of training crops"](SMALL) == pytest.approx(96 * 0.01)
    assert drivers["Mpx decoded"](SMALL) == pytest.approx((40 + 96) * 0.2)
    assert SECONDS["cams"]["Mpx through the network"](SMALL) == pytest.approx(32 * 0.2 * 2.5)
    assert SECONDS["refine"]["Mpx x labels x iterations"](SMALL) == pytest.approx(32 * 0.2 * 3 * 10)
    assert SECONDS["segment"]["Mpx predicted"](SMALL) == pytest.approx(8 * 0.2)
    assert BYTES["report"]["images"](SMALL) == 72


def test_what_is_left_of_an_epoch_is_no_step_and_a_small_set_is_one_batch() -> None:
    assert Workload(train=47, val=0).views(0) == 32
    assert Workload(train=10, val=0).views(0) == 10


def test_prediction_by_hand() -> None:
    cost = Cost(start=5.0, prices={"Mpx x labels x iterations": 0.5})
    assert cost.predict(SECONDS["refine"], SMALL) == pytest.approx(5 + 0.5 * 192)
    assert per_image(cost, SECONDS["refine"], SMALL) == pytest.approx(0.5 * 192 / 32)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("drivers", [SECONDS, BYTES], ids=["seconds", "bytes"])
@given(times=st.integers(1, 1000))
def test_whole_batches_cost_in_proportion_to_images(
    command: str, drivers: dict[str, dict[str, object]], times: int
) -> None:
    more = replace(SMALL, train=times * SMALL.train, val=times * SMALL.val)
    for name, driver in drivers[command].items():
        assert callable(driver)
        expected = driver(SMALL) * (1 if name == "classes" else times)
        assert driver(more) == pytest.approx(expected)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_calibration_finds_the_prices_of_made_up_costs(command: str) -> None:
    drivers = SECONDS[command]
    true = Cost(3.0, {name: 0.01 * (index + 1) for index, name in enumerate(drivers)})
    points = [(workload, true.predict(drivers, workload)) for workload in calibration(16, 56)]
    found = fit(drivers, points)
    far = replace(sized(400), tags=3.0, classes=80, megapixels=0.3)
    assert found.predict(drivers, far) == pytest.approx(true.predict(drivers, far), rel=1e-3)


def test_no_price_is_negative() -> None:
    drivers = SECONDS["status"]
    found = fit(drivers, [(sized(16), 5.0), (sized(400), 4.0)])
    assert found.prices == {"images": 0.0}
    assert 4.0 <= found.start <= 5.0


def test_the_memory_table_marks_what_grows() -> None:
    runs = [
        (sized(images), {command: usage(peak * MIB) for command in COMMANDS})
        for images, peak in ((40, 100), (320, 115), (400, 115))
    ]
    table = memory_table(runs)
    assert "| cams | 1.150 (above 1.1) | 1.000 | 1.000 |" in table
    assert [row.passed for row in memory_rows(runs)] == [False] * len(COMMANDS)


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = [(sized(40), {command: usage(1.0) for command in COMMANDS})]
    report(memory_rows(runs), figures([], runs), tmp_path / "figures.json")
    assert read_json(tmp_path / "figures.json") == ([], runs)


def test_extrapolation_by_hand() -> None:
    nothing = {command: Cost(0.0, {}) for command in COMMANDS}
    table = extrapolation(nothing | {"status": Cost(7200.0, {"images": 0.0})}, nothing)
    assert "| VOC train_aug | status | 2.00 | 0.0000 | 0 B |" in table


def test_made_up_data_is_what_the_workload_says(tmp_path: Path) -> None:
    workload = replace(sized(16), megapixels=0.0012, tags=4.0)
    make_data(tmp_path / "data", workload)
    dataset = open_dataset(DataConfig(source="folder", root=str(tmp_path / "data")))
    assert len(dataset.split("train")) == workload.train
    assert len(dataset.split("val")) == workload.val
    assert len(dataset.classes) == workload.classes
    assert {len(sample.tags) for sample in dataset.samples} == {4}
    assert {sample.size for sample in dataset.samples} == {(30, 40)}


def test_readable_bytes() -> None:
    assert [readable_bytes(n) for n in (0, 1023, 1536, 2.5 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "2.5 TiB",
    ]
