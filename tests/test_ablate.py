"""The command `ablate` as a whole: every variant with every seed, interruption, what is shared, what is refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from run_pipeline import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from stages.commands.ablate import command as running
from stages.commands.ablate.command import estimate
from stages.commands.session import Session, compute_missing
from stages.workspace import Workspace, prune
from tests.pipelines import SETTINGS
from tests.reports import write_made_up
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.runtime import interrupt

PAIR = ("--seeds", "0,1", "--variants", "baseline,mea+sr")
ALL_STAGES = ("classify", "cams", "refine", "segment")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=6, n_val=3)


def ablate(data: DataConfig, workspace: Path, *extra: str) -> int:
    settings = [part for setting in [f"data.root={data.root}", *SETTINGS] for part in ("--set", setting)]
    return main(["ablate", "--workspace", str(workspace), "--name", "tiny", *settings, *extra])


def values_in(workspace: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((workspace / "tiny" / "ablation.json").read_text(encoding="utf-8"))
    return loaded


def artifacts(workspace: Path) -> dict[str, float]:
    """When each artifact was written, by stage and name."""
    return {f"{p.parent.name}/{p.name}": p.stat().st_mtime_ns for p in workspace.glob("artifacts/*/*.h5")}


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs get made-up results: better by two pixels with MEA, by another with SR-F. Returns their names as they come.

    What is put into the list beforehand as "fail NAME" fails.
    """
    runs: list[str] = []

    def compute(session: Session) -> list[str]:
        if f"fail {session.run.folder.name}" in runs:
            raise UserError("segment: the loss is not finite at step 3 of 9")
        section = session.config.segment
        missing = tuple(name for name, item in session.planned.items() if not item.cached)
        write_made_up(session, 6 - 2 * section.mea - bool(section.weight_sr_f) - session.config.seed, missing)
        runs.append(session.run.folder.name)
        return list(missing)

    monkeypatch.setattr(running, "compute_missing", compute)
    monkeypatch.setattr(running, "bring_overview_up_to_date", lambda *_: None)
    return runs


def test_an_interrupted_ablation_goes_on_with_what_is_missing(
    data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = iter(range(9))

    def stopped_in_the_second(session: Session) -> list[str]:
        monkeypatch.setattr(interrupt, "_requested", next(count) == 1)
        return compute_missing(session)

    monkeypatch.setattr(running, "compute_missing", stopped_in_the_second)
    assert ablate(data, tmp_path, *PAIR) == EXIT_INTERRUPTED
    partial = values_in(tmp_path)
    assert [(run["variant"], run["seed"]) for run in partial["runs"]] == [("baseline", 0)]
    assert "1 of 4 runs" in (tmp_path / "tiny" / "ablation.html").read_text(encoding="utf-8")
    before = artifacts(tmp_path)

    monkeypatch.setattr(interrupt, "_requested", False)
    assert ablate(data, tmp_path, *PAIR) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", about")[0] for line in lines if line.startswith("[")] == [
        "[1/4] baseline, seed 0",
        "[2/4] mea+sr, seed 0",
        "[2/4] mea+sr, seed 0",
        "[3/4] baseline, seed 1",
        "[4/4] mea+sr, seed 1",
    ]
    after = artifacts(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == 16  # two variants, two seeds, four stages: nothing in common here
    values = values_in(tmp_path)
    assert len(values["runs"]) == values["runs_planned"] == 4
    assert values["runs"][0]["figures"] == partial["runs"][0]["figures"]
    assert values["summary"]["mea+sr"]["segment.miou"]["pairs"] == 2
    assert set(values["cost"]) == {"baseline", "mea+sr"}
    with Image.open(tmp_path / "tiny" / "ablation.png") as picture:
        assert picture.width == 1400
    figures = json.loads((tmp_path / "tiny.mea+sr.s1" / "report.json").read_text(encoding="utf-8"))
    assert figures["segment.miou"] == values["runs"][3]["figures"]["segment.miou"]
    assert (figures["seed"], figures["config"]["segment.mea"]) == (1, True)
    assert not any(key.startswith("ablate.") for key in figures["config"])
    assert (tmp_path / "tiny.mea+sr.s1" / "overview.png").exists()
    assert main(["compare", "tiny.baseline.s0", "tiny.mea+sr.s0", "--workspace", str(tmp_path)]) == 0

    assert [run.folder.name for run in Workspace(tmp_path).runs()] == sorted(
        f"tiny.{name}.s{seed}" for name in ("baseline", "mea+sr") for seed in (0, 1)
    )
    removed = [path for path, _ in prune(Workspace(tmp_path), dry_run=False)]
    assert not [path for path in removed if path.suffix in (".h5", ".json")]
    assert ablate(data, tmp_path, *PAIR) == 0
    assert "4 of 4 runs are there already" in capsys.readouterr().out
    assert artifacts(tmp_path) == before | after


def test_variants_share_what_is_the_same(data: DataConfig, tmp_path: Path, untrained: list[str]) -> None:
    segment_only = ("--set", "ablate.stages=['segment']", "--no-cost")
    assert ablate(data, tmp_path, *segment_only) == 0
    assert untrained == [
        f"tiny.{variant}.s{seed}"
        for seed in (0, 1, 2)
        for variant in ("baseline", "mea", "mea+srf", "mea+srl", "mea+sr")
    ]
    names = [name.split("/")[0] for name in artifacts(tmp_path)]
    assert {stage: names.count(stage) for stage in ALL_STAGES} == {
        "classify": 3,
        "cams": 3,
        "refine": 3,
        "segment": 15,
    }
    values = values_in(tmp_path)
    assert values["cost"] is None
    gain = values["summary"]["mea"]["segment.miou"]
    assert gain["difference"] > 0
    assert gain["verdict"] == "gain"
    assert values["summary"]["mea"]["cams.miou"]["difference"] == 0
    assert "mea: better in validation (mIoU" in " ".join(values["excludes_zero"])


def test_other_seeds_and_variants_reuse_what_is_there(
    data: DataConfig, tmp_path: Path, untrained: list[str]
) -> None:
    assert ablate(data, tmp_path, "--seeds", "1", "--variants", "baseline", "--no-cost") == 0
    assert ablate(data, tmp_path, *PAIR, "--no-cost") == 0
    assert untrained == ["tiny.baseline.s1", "tiny.baseline.s0", "tiny.mea+sr.s0", "tiny.mea+sr.s1"]
    assert [run["seed"] for run in values_in(tmp_path)["runs"]] == [0, 0, 1, 1]


def test_a_run_that_fails_does_not_stop_the_others(
    data: DataConfig,
    tmp_path: Path,
    untrained: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    untrained.append("fail tiny.baseline.s0")
    assert ablate(data, tmp_path, *PAIR, "--no-cost") == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert "1 of 4 runs failed" in captured.err
    assert "baseline, seed 0: segment: the loss is not finite" in captured.err
    assert "3 of 4 runs" in captured.out
    assert [item["seed"] for item in values_in(tmp_path)["failed"]] == [0]
    untrained.clear()
    assert ablate(data, tmp_path, *PAIR, "--no-cost") == 0
    assert values_in(tmp_path)["failed"] == []


def test_costs_are_measured_once_and_kept(
    data: DataConfig, tmp_path: Path, untrained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.commands.ablate import cost

    calls: list[tuple[list[str], int]] = []

    def costs(configs: dict[str, Any], classes: int) -> dict[str, dict[str, float]]:
        calls.append((list(configs), classes))
        return {name: {"step_ms": 2.0} for name in configs}

    monkeypatch.setattr(cost, "variant_costs", costs)
    for extra in ([], [], ["--no-cost"]):
        assert ablate(data, tmp_path, *PAIR, *extra) == 0
    assert calls == [(["baseline", "mea+sr"], 3)]
    assert values_in(tmp_path)["cost"]["mea+sr"] == {"step_ms": 2.0}
    assert ablate(data, tmp_path, *PAIR, "--set", "segment.exit_channels=16") == 0
    assert len(calls) == 2


def test_the_rest_is_estimated_from_what_was_recorded(
    data: DataConfig, tmp_path: Path, untrained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[running.Trial] = []
    check: Callable[[Sequence[running.Trial]], None] = running._check_networks

    def remember(found: Sequence[running.Trial]) -> None:
        trials.extend(found)
        check(found)

    monkeypatch.setattr(running, "_check_networks", remember)
    assert ablate(data, tmp_path, *PAIR, "--no-cost") == 0
    assert estimate(trials) == 0
    items = [item for trial in trials for item in trial.session.planned.values()]
    for index, item in enumerate(items):
        item.record.write_text(json.dumps({"seconds": 10.0 * (index % 4)}), encoding="utf-8")
    for item in (items[4], items[7]):  # classify and segment of one run
        item.path.unlink()
    assert estimate(trials) == 30
    for item in items[3::4]:
        item.record.unlink()
    assert estimate(trials) is None


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (["--variants", "baseline,mea+sfr"], "unknown variant 'mea+sfr'; did you mean 'mea+sr'"),
        (["--seeds", "1,1"], "none of them twice"),
        (["--set", "segment.weight_sr_f=0", "--set", "classify.weight_sr_f=0"], "segment.weight_sr_f=1"),
        (["--set", 'ablate.own={"mea"=["segment.exits=[9]"]}'], "variant 'mea': segment.exits"),
        (["--name", "n" * 41], "at most 40 characters"),
        (["--set", "segment.backbone=resnet_18"], "resnet_18"),
        (["--set", "run.device=cuda:9"], "error: run.device = 'cuda:9'"),
    ],
)
def test_mistakes_end_in_a_short_message_before_anything_is_computed(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], part: str
) -> None:
    assert ablate(data, tmp_path, *extra) == EXIT_USER_ERROR
    assert part in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.h5"))
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize("extra", [["--seeds", "a"], ["--seeds", "-1"], ["--variants", "a,,b"]])
def test_lists_that_are_none_are_refused(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str]
) -> None:
    with pytest.raises(SystemExit):
        ablate(data, tmp_path, *extra)
    assert "expected" in capsys.readouterr().err
