"""The short forms of `make torture`'s damage and kills."""

import shutil
import signal
from pathlib import Path

import pytest

from torture.__main__ import KILLS, LANES, PARTS
from torture.damage import damage_everywhere
from torture.kill import STAGES, Deaths, _next, kill_anywhere, stopped
from torture.launch import cut_small
from torture.tiny import Tiny, make_tiny, undisturbed
from wsss import train
from wsss.store import artifacts


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", train.CHECKPOINT_SECONDS)
    monkeypatch.setitem(artifacts.write_sharded.__kwdefaults__ or {}, "shard_size", artifacts.SHARD_SIZE)
    cut_small()
    return make_tiny(tmp_path / "data")


def test_damaged_files_are_found_and_made_anew(tiny: Tiny, tmp_path: Path) -> None:
    found = damage_everywhere(tiny, undisturbed(tiny, tmp_path / "whole"), tmp_path / "damaged", 4, 1)
    assert found.findings == []
    assert found.done.total() == 4


def test_killed_runs_end_in_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    deaths = kill_anywhere(tiny, undisturbed(tiny, tmp_path / "whole"), tmp_path / "killed", 3, 2)
    assert deaths.findings == []
    assert deaths.during.total() == 3
    assert deaths.finished >= 1


def test_kills_are_spread_evenly_over_the_stages(tmp_path: Path) -> None:
    deaths = Deaths()
    seen = []
    for _ in range(12):
        if (stage := _next(deaths, tmp_path)) is None:  # the run gets through, and another begins
            shutil.rmtree(tmp_path / "artifacts")
            continue
        deaths.during[stage] += 1
        seen.append(stage)
        if seen.count(stage) % 2 == 0:
            done = tmp_path / "artifacts" / stage / "x.h5"
            done.parent.mkdir(parents=True)
            done.touch()
    assert deaths.during["classify"] >= 3
    assert max(deaths.during.values()) - min(deaths.during[stage] for stage in STAGES) <= 2


def test_every_part_has_its_lane() -> None:
    assert {part for lane in LANES for part in lane} == set(PARTS)
    assert [sum(lane.values()) for lane in LANES] == pytest.approx([1, 1])
    assert sum(KILLS) == pytest.approx(1)


def test_a_run_that_is_asked_to_stop_says_how_to_go_on(tiny: Tiny, tmp_path: Path) -> None:
    assert stopped(tiny, tmp_path, signal.SIGTERM, 0.5, patience=60) == []


def test_a_run_that_ends_before_it_begins_is_a_finding_not_a_wait(tiny: Tiny, tmp_path: Path) -> None:
    shutil.rmtree(tiny.root)
    (finding,) = stopped(tiny, tmp_path, signal.SIGTERM, 0)
    assert "exit status 2" in finding
    assert str(tiny.root) in finding
