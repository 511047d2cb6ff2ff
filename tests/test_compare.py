"""Comparisons: nothing against itself, the right sign against others, and only what is comparable."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.images import read_mask
from run_pipeline import main
from stages.commands.compare import Side, load_report, pair_sides, run_compare, worse_by
from stages.commands.compare.pairing import Line, StagePair, pair_stage
from stages.commands.report import report_paths
from stages.commands.report.values import Values
from stages.commands.session import Session
from tests.reports import synthetic_run
from tests.trees import make_folder_tree, write_png
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.store.files import write_sealed_json

RESAMPLES = 200
Reports = tuple[Values, Values]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=12, n_val=6)


@pytest.fixture(scope="module")
def workspace(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: masks off by 3 pixels, by 8, and exact; settings differ so that artifacts do."""
    root = tmp_path_factory.mktemp("ws")
    for name, shift, seed in (("three", 3, 0), ("eight", 8, 1), ("exact", 0, 2)):
        synthetic_run(data, root, f"seed={seed}", name=name, shift=shift)
    return root


@pytest.fixture(scope="module")
def reports(workspace: Path) -> dict[str, Values]:
    return {name: load_report(workspace / name / "report.json") for name in ("three", "eight", "exact")}


def lines_of(pair: StagePair) -> list[Line]:
    return [*pair.scores, *pair.classes, *pair.failures, *pair.indicators]


def test_a_run_against_itself_is_zero_everywhere(reports: dict[str, Values]) -> None:
    for stage in ("cams", "refine", "segment"):
        pair = pair_stage(stage, reports["three"], reports["three"], resamples=RESAMPLES)
        assert pair.notes == ()
        for line in lines_of(pair):
            assert line.a == line.b
            assert {line.difference, line.low, line.high} <= {0.0, None}
            assert not line.certain
        assert all(before == after for _, before, after in pair.changes)


def test_figures_are_those_of_the_reports(reports: dict[str, Values]) -> None:
    a, b = reports["three"], reports["eight"]
    for stage in ("cams", "refine", "segment"):
        pair = pair_stage(stage, a, b, resamples=RESAMPLES)
        for line in pair.scores:
            assert (line.a, line.b) == pytest.approx((a[f"{stage}.{line.key}"], b[f"{stage}.{line.key}"]))
        assert [line.a for line in pair.classes] == pytest.approx(a[f"{stage}.iou"])
        failures = {line.key: line for line in pair.failures}
        for index, size in enumerate(("tiny", "small", "medium", "large")):
            assert failures[f"failure1.recall_{size}"].b == pytest.approx(
                b[f"{stage}.failure1.recall_by_size"][index], nan_ok=True
            )
            assert failures[f"failure1.missed_{size}"].a == a[f"{stage}.failure1.missed_by_size"][index]
        assert failures["failure1.recall_thin"].a == pytest.approx(a[f"{stage}.failure1.recall_thin"])
        assert failures["failure2.mistaken"].a == pytest.approx(a[f"{stage}.failure2.mistaken"])
        for line in pair.indicators:
            name = line.key.removeprefix("indicator.")
            if name not in ("covered", "tags_named"):  # those of the report count tags, not images
                assert line.a == pytest.approx(a[f"{stage}.indicator.{name}"])


def test_the_direction_and_the_verdict(reports: dict[str, Values]) -> None:
    pair = pair_stage("refine", reports["exact"], reports["eight"], resamples=RESAMPLES)
    miou = pair.scores[0]
    assert miou.a == 1.0
    assert miou.difference is not None
    assert miou.low is not None
    assert miou.high is not None
    assert miou.low <= miou.difference <= miou.high < 0
    assert miou.verdict == "loss"
    back = pair_stage("refine", reports["eight"], reports["exact"], resamples=RESAMPLES)
    assert back.scores[0].verdict == "gain"
    assert back.scores[0].low == pytest.approx(-miou.high)
    assert pair.changes == tuple(sorted(pair.changes, key=lambda row: row[2] - row[1]))
    assert all(after < before for _, before, after in pair.changes)


def test_fewer_missed_objects_is_a_gain() -> None:
    line = Line("failure1.missed_tiny", "tiny objects missed", "less", 0.5, 0.2, -0.3, -0.4, -0.2)
    assert line.verdict == "gain"
    assert Line("x", "x", "more", 0.5, 0.2, -0.3, -0.4, 0.1).verdict == ""
    assert Line("x", "x", "", 0.5, 0.2, -0.3, -0.4, -0.1).verdict == ""


def changed(report: Values, change: Callable[[dict[str, Any]], None]) -> Values:
    copy: Values = json.loads(json.dumps(report))
    change(copy)
    return copy


def test_classes_in_another_order_are_compared_by_name(reports: dict[str, Values]) -> None:
    order = [0, 3, 1, 2]  # new label of each old one

    def shuffle(report: dict[str, Any]) -> None:
        report["labels"] = [report["labels"][order.index(label)] for label in range(4)]
        for rows in report["refine.per_image.labels"]:
            for row in rows:
                row[0] = order[row[0]]

    pair = pair_stage("refine", reports["three"], changed(reports["three"], shuffle), resamples=RESAMPLES)
    assert all(line.difference == 0 for line in (*pair.scores, *pair.classes))
    assert "another order" in pair.notes[0]


def test_other_classes_are_said_and_only_common_ones_compared(reports: dict[str, Values]) -> None:
    def rename(report: dict[str, Any]) -> None:
        report["labels"][2] = "unicorn"

    pair = pair_stage("refine", reports["three"], changed(reports["eight"], rename), resamples=RESAMPLES)
    assert [line.title for line in pair.classes] == ["disc", "diamond"]
    assert pair.failures == ()
    assert "The classes differ" in pair.notes[0]


def test_other_masks_and_images_are_left_out_and_said(
    data: DataConfig, reports: dict[str, Values], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(data.root, tmp_path / "data"))
    (other / "masks" / "val_012.png").unlink()
    mask = read_mask(other / "masks" / "val_013.png")
    mask[:3] = 0
    mask[0, 0] = 1
    write_png(other / "masks" / "val_013.png", mask)
    session = synthetic_run(DataConfig(source="folder", root=str(other)), tmp_path / "ws", name="other")
    report = load_report(report_paths(session.run)[1])
    pair = pair_stage("segment", reports["three"], report, resamples=RESAMPLES)
    assert pair.images == ("val_014", "val_015", "val_016", "val_017")
    assert "6 against 5" in pair.notes[0]
    assert "1 have another mask" in pair.notes[0]


def test_without_truth_the_indicators_are_compared(tmp_path: Path) -> None:
    bare = make_folder_tree(tmp_path / "data", n_train=6, n_val=3, masks=False)
    session = synthetic_run(bare, tmp_path / "ws")
    report = load_report(report_paths(session.run)[1])
    pair = pair_stage("cams", report, report, resamples=RESAMPLES)
    assert pair.scores == ()
    assert pair.indicators
    assert "No ground truth" in pair.notes[0]
    with pytest.raises(UserError, match="no comparable scores"):
        worse_by([pair_sides(Side(Path(), "a", report), Side(Path(), "b", report), resamples=RESAMPLES)], 1.0)


def test_the_command_prints_writes_and_judges(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--workspace", str(workspace), "--resamples", "100"]
    assert main(["compare", "exact", "three", "eight", *common]) == 0
    text = capsys.readouterr().out
    assert text.startswith("three is worse than exact in seed (−")
    assert "points of mIoU, 12 images) and pseudo-masks (−" in text.splitlines()[0]
    assert re.search(r"predictions +6 +100\.0 +\d+\.\d +−\d+\.\d +\[−\d+\.\d, −\d+\.\d\] +worse", text)
    assert "seed: exact 2 | three 0 | eight 1" in text
    assert "three against exact" in text
    assert "eight against exact" in text
    assert (workspace / "eight" / "compare.html").exists()
    assert main(["compare", "exact", "eight", *common, "--fail-if-worse", "5"]) == 1
    assert "worse by more than 5 points: eight" in capsys.readouterr().err
    assert main(["compare", "exact", "eight", *common, "--fail-if-worse", "5", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["pairs"][0]["b"] == "eight"
    assert main(["compare", "eight", "exact", *common, "--fail-if-worse", "0"]) == 0


def test_results_that_two_runs_share_are_one_line(
    data: DataConfig, workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("cams", "refine"):  # of the run "three", under another name and with another segmenter
        shutil.copytree(workspace / "artifacts" / stage, tmp_path / "artifacts" / stage)
    synthetic_run(data, tmp_path, "seed=0", name="three")
    synthetic_run(data, tmp_path, "seed=0", "segment.epochs=7", name="longer", shift=5)
    assert run_compare(["three", "longer"], tmp_path, out=tmp_path / "page", resamples=RESAMPLES)
    text = capsys.readouterr().out
    assert text.splitlines()[0].endswith("They share seed and pseudo-masks.")
    assert re.search(r"^pseudo-masks +12 +the same result$", text, flags=re.MULTILINE)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "longer is worse than three in predictions" in page
    assert page.count("<h3>") == 1
    assert page.count("<svg") == 2


def test_a_page_that_cannot_be_written_comes_after_the_answer(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file"):
        run_compare(["exact", "three"], workspace, out=tmp_path / "file" / "page", resamples=RESAMPLES)
    assert "three is worse than exact" in capsys.readouterr().out


def test_json_is_the_whole_comparison(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_compare(["exact", "three"], workspace, print_json=True, resamples=RESAMPLES)
    loaded = json.loads(capsys.readouterr().out)
    assert [stage["stage"] for stage in loaded["pairs"][0]["stages"]] == ["cams", "refine", "segment"]
    assert loaded["pairs"][0]["answer"].startswith("three is worse than exact in seed (")
    first = loaded["pairs"][0]["stages"][1]["scores"][0]
    assert first["key"] == "miou"
    assert first["low"] <= first["difference"] <= first["high"] < 0
    assert loaded["config"] == [{"key": "seed", "values": [2, 0]}]


def test_the_page_shows_both_masks_of_the_images_that_changed_most(workspace: Path, tmp_path: Path) -> None:
    run_compare(["exact", "three"], workspace, out=tmp_path / "page.html", resamples=RESAMPLES)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<figcaption>pseudo-mask, exact</figcaption>") == 3
    assert text.count("<figcaption>pseudo-mask, three</figcaption>") == 3
    assert "No pictures" not in text


def test_reports_from_elsewhere_are_compared_without_pictures(workspace: Path, tmp_path: Path) -> None:
    copies = []
    for name in ("exact", "three"):
        copies.append(str(shutil.copy(workspace / name / "report.json", tmp_path / f"{name}.json")))
    assert run_compare(copies, tmp_path / "none", out=tmp_path / "page.html", resamples=RESAMPLES)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No pictures" in text
    assert "<img" not in text


def test_damaged_and_older_reports_are_named(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for content in ("{", "[]", '{"schema": 1, "run": "x", "labels": [], "config": {}, "sha256": "0"}'):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"report\.json: not a run's report\.json, or changed"):
            load_report(path)
    write_sealed_json(path, {"schema": 99, "run": "x"})
    with pytest.raises(UserError, match=r"report\.json: schema 99, expected 1"):
        load_report(path)


def test_missing_runs_are_named(workspace: Path) -> None:
    with pytest.raises(UserError, match=r"run nope: no report.*eight, exact, three"):
        run_compare(["exact", "nope"], workspace, resamples=RESAMPLES)
    with pytest.raises(UserError, match="two runs or more"):
        run_compare(["exact"], workspace, resamples=RESAMPLES)


def test_stages_that_only_one_has_are_said(
    data: DataConfig, reports: dict[str, Values], tmp_path: Path
) -> None:
    session: Session = synthetic_run(data, tmp_path, stages=("cams",))
    report = load_report(report_paths(session.run)[1])
    sides = [Side(Path(), "a", reports["three"]), Side(Path(), "b", report)]
    pair = pair_sides(sides[0], sides[1], resamples=RESAMPLES)
    assert [stage.stage for stage in pair.stages] == ["cams"]
    assert any("only a has it" in note for note in pair.notes)
