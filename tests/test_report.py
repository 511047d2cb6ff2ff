"""The report's figures: against direct evaluation, with and without ground truth, whoever computes them."""

import csv
import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from run_pipeline import main
from stages.commands.report import refresh_report, report_paths, require_tensorboard
from stages.commands.report.gallery import choose
from stages.commands.report.measure import measure, read_metrics
from stages.commands.report.values import REVIEWED_BY, advice
from stages.commands.run import run_report
from stages.commands.session import Request, Session, open_session
from tests.pipelines import request
from tests.reports import EXITS, moved, synthetic_run
from tests.trees import make_folder_tree
from wsss.config import DataConfig, RefineConfig
from wsss.errors import UserError
from wsss.metrics.confusion import confusion_counts, mask_scores
from wsss.metrics.failures import FAILURE_COLUMNS
from wsss.metrics.sweep import THRESHOLDS
from wsss.store.files import write_sealed_json

STAGES = ("cams", "refine", "segment")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=8, n_val=4)


@pytest.fixture(scope="module")
def session(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return synthetic_run(data, tmp_path_factory.mktemp("workspace"))


def report_of(session: Session) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(report_paths(session.run)[1].read_text(encoding="utf-8"))
    return loaded


def test_scores_equal_a_direct_evaluation(session: Session) -> None:
    report = report_of(session)
    labels = len(session.dataset.classes) + 1
    for stage, split in (("refine", "train"), ("segment", "val")):
        counts = np.zeros((labels, labels + 1), np.int64)
        for sample in session.dataset.split(split).samples:
            assert sample.mask is not None
            counts += confusion_counts(sample.mask.read(), moved(sample, 3), labels)
        scores = mask_scores(counts)
        assert report[f"{stage}.confusion"] == counts.tolist()
        assert report[f"{stage}.miou"] == pytest.approx(scores.miou)
        assert report[f"{stage}.fwiou"] == pytest.approx(scores.fwiou)
        assert report[f"{stage}.iou"] == pytest.approx(scores.iou.tolist())
        assert 0 < report[f"{stage}.boundary_iou"] < report[f"{stage}.miou"] < 1


def test_the_rows_of_the_images_add_up_to_the_totals(session: Session) -> None:
    report = report_of(session)
    for stage in STAGES:
        rows = np.concatenate([np.asarray(rows) for rows in report[f"{stage}.per_image.labels"]])
        confusion = np.asarray(report[f"{stage}.confusion"])
        for label in range(len(confusion)):
            right, truth, predicted = rows[rows[:, 0] == label, 1:4].sum(0)
            assert (right, truth) == (confusion[label, label], confusion[label].sum())
            assert predicted == confusion[:, label].sum()
        failures = np.sum(report[f"{stage}.per_image.failures"], axis=0)
        found, pixels = (failures[FAILURE_COLUMNS.index(name)] for name in ("found thin", "pixels thin"))
        assert report[f"{stage}.failure1.recall_thin"] == pytest.approx(found / pixels)


def test_every_exit_is_scored_like_the_predictions(session: Session) -> None:
    report = report_of(session)
    labels = len(session.dataset.classes) + 1
    assert report["segment.exits.blocks"] == list(EXITS)
    for found, more in zip(report["segment.exits.miou"], EXITS.values(), strict=True):
        counts = np.zeros((labels, labels + 1), np.int64)
        for sample in session.dataset.split("val").samples:
            assert sample.mask is not None
            counts += confusion_counts(sample.mask.read(), moved(sample, 3 + more), labels)
        assert found == pytest.approx(mask_scores(counts).miou)
        assert found < report["segment.miou"]


def test_the_configured_threshold_is_a_point_of_the_sweep(session: Session) -> None:
    report = report_of(session)
    index = report["cams.thresholds"].index(report["cams.threshold"])
    assert report["cams.miou"] == pytest.approx(report["cams.curve.miou"][index])
    assert report["cams.best_miou"] == max(report["cams.curve.miou"])
    assert report["cams.best_chosen_by"] == "this ground truth"


def test_every_key_is_documented_and_every_documented_key_is_there(session: Session) -> None:
    text = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)
    documented = {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}
    used = {re.sub(r"^(classify|cams|refine|segment)\.", "STAGE.", key) for key in report_of(session)}
    each = {
        key.replace("STAGE.", "STAGE.per_image.")
        for key in documented
        if ".indicator." in key and "class_" not in key
    }
    assert {key for key in used if "per_image.indicator." in key} == each - {
        "STAGE.per_image.per_image.indicator.NAME"
    }
    named = r"(per_image\.indicator\.|failure[12]\.class_)(?!mistaken_for).*"
    used = {re.sub(named, r"\1NAME", key) for key in used}
    assert used - documented == set()
    assert documented - used == set()


def test_the_order_of_review_is_the_mean_of_ranks_and_its_worth_is_told(session: Session) -> None:
    report = report_of(session)
    rows = list(csv.DictReader(io.StringIO((session.run.folder / "review.csv").read_text(encoding="utf-8"))))
    for stage, result in (("cams", "seed"), ("refine", "pseudo-masks"), ("segment", "predictions")):
        columns = []
        for name in REVIEWED_BY[stage]:
            values = np.array(report[f"{stage}.per_image.indicator.{name.lstrip('-')}"], float)
            known = np.isfinite(values)
            ranks = np.full(len(values), np.nan)
            ranks[known] = (rankdata((-1 if name[0] == "-" else 1) * values[known]) - 0.5) / known.sum()
            columns.append(ranks)
        scores = np.nanmean(columns, axis=0)
        assert report[f"{stage}.per_image.review"] == pytest.approx(scores.tolist())
        miou = report[f"{stage}.per_image.miou"]
        assert report[f"{stage}.review.correlation"] == pytest.approx(spearmanr(scores, miou)[0], nan_ok=True)
        own = [row for row in rows if row["result"] == result]
        assert [float(row["score"]) for row in own] == pytest.approx(sorted(scores), abs=1e-4)
        wrong = {
            image: sum(row[2] - row[1] for row in counts)
            for image, counts in zip(
                report[f"{stage}.per_image.id"], report[f"{stage}.per_image.labels"], strict=True
            )
        }
        share = wrong[own[0]["image"]] / sum(wrong.values())  # one image is the tenth of up to ten
        assert report[f"{stage}.review.worst_tenth"] == pytest.approx(share)


def test_what_stands_out_is_told_with_a_setting_that_can_be_set(data: DataConfig, tmp_path: Path) -> None:
    session = synthetic_run(data, tmp_path, "refine.background=0.05")
    report = report_of(session)
    assert report["answer"].startswith(f"mIoU: {100 * report['cams.miou']:.1f} for the seed (8 images), ")
    chosen = re.search(r"--set (\S+) --set (\S+)$", report["advice"][0])
    assert chosen
    better = report_of(synthetic_run(data, tmp_path, *chosen.groups()))
    assert better["cams.miou"] == report["cams.best_miou"] > report["cams.miou"] + 0.02
    assert not any("threshold" in sentence for sentence in better["advice"])
    assert any(sentence.startswith("rare: ") for sentence in better["advice"])


def test_what_the_refinement_and_the_network_lose_is_told() -> None:
    tiny = "failure1.recall_by_size"
    seed = {"miou": 0.6, "best_miou": 0.61, "threshold": 0.08, tiny: [0.6, 0.7, 0.8, 0.9]}
    masks = {"miou": 0.7, tiny: [0.3, 0.7, 0.8, 0.9], "indicator.covered": 0.9}
    found = advice(
        {"cams": seed, "refine": masks, "segment": {"miou": 0.5}}, RefineConfig(), ["never alone: x"]
    )
    starts = [
        "The seed's threshold is low",
        "The refinement loses tiny",
        "10 % of the tags",
        "The network stays 20 points",
    ]
    assert all(text.startswith(start) for text, start in zip(found, starts, strict=False))
    assert found[1].endswith("60 % were found before it and 30 % after; --set refine.unary_weight=2")
    assert found[4:] == ["never alone: x"]
    fine = {**masks, tiny: seed[tiny], "indicator.covered": 1.0}
    assert (
        advice(
            {"cams": {**seed, "threshold": 0.3}, "refine": fine, "segment": {"miou": 0.69}},
            RefineConfig(),
            [],
        )
        == []
    )
    assert advice({}, RefineConfig(), []) == []


def test_report_json_is_flat_and_has_no_nan(session: Session) -> None:
    text = report_paths(session.run)[1].read_text(encoding="utf-8")
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in report.json"))
    nested = [key for key, value in values.items() if isinstance(value, dict)]
    assert set(nested) <= {"config", "software"}


def test_nothing_is_written_again_when_nothing_changed(session: Session, data: DataConfig) -> None:
    before = [path.stat().st_mtime_ns for path in report_paths(session.run)]
    refresh_report(open_session(request(data, session.workspace.root, name="synthetic")))
    assert [path.stat().st_mtime_ns for path in report_paths(session.run)] == before
    values = json.loads(report_paths(session.run)[1].read_text(encoding="utf-8"))
    del values["answer"], values["material"], values["sha256"]  # as an older version wrote it
    write_sealed_json(report_paths(session.run)[1], values)
    refresh_report(open_session(request(data, session.workspace.root, name="synthetic")))
    assert report_of(session)["answer"].startswith("mIoU: ")
    kept = sorted((session.workspace.root / "scores").iterdir())
    assert len(kept) == len(STAGES)


def test_a_new_threshold_is_measured_again(data: DataConfig, tmp_path: Path) -> None:
    first = report_of(synthetic_run(data, tmp_path, stages=("cams",)))
    changed = open_session(request(data, tmp_path, "refine.background=0.8", name="synthetic"))
    refresh_report(changed)
    second = report_of(changed)
    assert (first["cams.threshold"], second["cams.threshold"]) == (0.15, 0.8)
    assert second["cams.miou"] != first["cams.miou"]


@pytest.mark.slow
def test_processes_do_not_change_the_figures(tmp_path: Path) -> None:
    data = make_folder_tree(
        tmp_path / "data", n_train=100, n_val=2, size=(12, 16)
    )  # more than are measured at once
    alone = measure(synthetic_run(data, tmp_path / "alone", "run.workers=0"))
    together = measure(synthetic_run(data, tmp_path / "together", "run.workers=2"))
    assert [read_metrics(path) for path in alone.values()] == [
        read_metrics(path) for path in together.values()
    ]


def test_without_any_mask_the_indicators_remain(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=8, n_val=4, masks=False)
    session = synthetic_run(data, tmp_path / "ws")
    report = report_of(session)
    for stage in STAGES:
        assert report[f"{stage}.scored_images"] == 0
        assert f"{stage}.miou" not in report
        assert f"{stage}.exits.miou" not in report
        assert report[f"{stage}.indicator.edge_alignment"] is not None
    assert report["cams.label_free_threshold"] in THRESHOLDS
    assert "cams.best_miou" not in report
    assert "No image has a mask" in report_paths(session.run)[0].read_text(encoding="utf-8")


def test_images_without_a_mask_are_left_out_of_the_scores_alone(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=8, n_val=4)
    (tmp_path / "data" / "masks" / "train_000.png").unlink()
    report = report_of(synthetic_run(data, tmp_path / "ws"))
    assert (report["refine.images"], report["refine.scored_images"]) == (8, 7)
    assert report["refine.per_image.labels"][0] is None
    assert report["refine.per_image.indicator.covered"][0] is not None


def test_coverage_counts_tags_without_a_pixel(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=6, n_val=2)
    session = synthetic_run(data, tmp_path / "ws", shift=10_000 * 48, stages=("refine",))
    report = report_of(session)
    tagged = [sum(tag in s.tags for s in session.dataset.split("train").samples) for tag in range(3)]
    assert report["refine.indicator.class_tagged"] == tagged
    assert report["refine.indicator.covered"] == 1.0
    assert report["refine.indicator.unsure"] == pytest.approx(1 / 36)


def test_gallery_shows_worst_median_best_and_every_class() -> None:
    class Tagged:
        def __init__(self, tags: tuple[int, ...]) -> None:
            self.tags = tags

    ids = [f"{index:02d}" for index in range(20)]
    values = {"per_image.id": ids, "per_image.miou": [i / 20 for i in range(20)]}
    values["per_image.review"] = [None, *(1 - i / 20 for i in range(1, 20))]
    samples: Any = {image_id: Tagged((0,) if image_id != "19" else (0, 1)) for image_id in ids}
    chosen = choose(values, samples, ("a", "b", "c"))
    assert chosen[:12] == [("review", image) for image in reversed(ids[8:])]
    chosen = chosen[12:]
    assert [image for group, image in chosen if group == "worst"] == ["00", "01", "02"]
    assert [image for group, image in chosen if group == "median"] == ["08", "09", "10"]
    assert [image for group, image in chosen if group == "best"] == ["17", "18", "19"]
    assert [group for group, _ in chosen[9:]] == ["a", "b"]  # no image shows c
    assert chosen[9][1] not in {image for _, image in chosen[:9]}


def test_report_of_an_unknown_run_names_the_known_ones(session: Session) -> None:
    unknown = Request(None, [], "no", session.workspace.root)
    with pytest.raises(UserError, match=r"run no: nothing is computed yet.*synthetic"):
        run_report(unknown)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own protobuf files
def test_tensorboards_events_are_read_back(session: Session) -> None:
    root = session.workspace.root
    for epoch in (1, 2):
        session.run.log({"stage": "segment", "epoch": epoch, "seg": 1.0 / epoch})
    assert main(["report", "synthetic", "--workspace", str(root), "--tensorboard"]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "synthetic" / "tensorboard"), {"scalars": 0, "images": 0})
    events.Reload()
    losses = events.Scalars("training/segment/seg")
    assert [(event.step, event.value) for event in losses] == [(1, 1.0), (2, 0.5)]
    report = json.loads((root / "synthetic" / "report.json").read_text(encoding="utf-8"))
    assert events.Scalars("quality/segment/miou")[0].value == pytest.approx(report["segment.miou"])
    assert len(events.Scalars("quality/cams/curve.miou")) == 99
    assert any(tag.startswith("refine/") for tag in events.Tags()["images"])


def test_without_tensorboard_it_says_so_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        require_tensorboard()
