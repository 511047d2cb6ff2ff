"""The short forms of `make torture`'s damage and kills."""

import signal
from pathlib import Path

import pytest

from torture.damage import damage_everywhere
from torture.kill import kill_anywhere, stopped
from torture.launch import cut_small
from torture.tiny import Tiny, make_tiny, undisturbed
from wsss import artifacts, train


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


def test_a_run_that_is_asked_to_stop_says_how_to_go_on(tiny: Tiny, tmp_path: Path) -> None:
    assert stopped(tiny, tmp_path, signal.SIGTERM, 0.5, patience=60) == []
