"""Stage refine with local refinement: its masks, its order, its device, its words, its measurement."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.refiners import measured
from data import Sample
from data.images import read_image
from run_pipeline import main
from stages.commands.finished import open_run
from stages.commands.report.report import report_paths
from stages.commands.session import Session, open_session, run_stage
from stages.local_refining import READERS, read_ahead
from stages.refine import Seed, SeedReader, seed_threshold
from tests.pipelines import request
from tests.reports import made_up_artifacts
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.crf import probabilities
from wsss.errors import UserError
from wsss.par import refine_local
from wsss.resize import resize_image, resize_labels, resize_maps, working_size
from wsss.store.artifacts import Artifact


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=12, n_val=2)


def refined(data: DataConfig, workspace: Path, *extra: str, name: str = "local") -> Session:
    """A run with made-up CAMs whose stage refine is computed."""
    changes = ("refine.method=local", *extra)
    made_up_artifacts(data, workspace, *changes, name=name, stages=("classify", "cams"))
    run_stage(request(data, workspace, *changes, name=name), "refine", force=False)
    return open_session(request(data, workspace, *changes, name=name))


@pytest.fixture(scope="module")
def session(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return refined(data, tmp_path_factory.mktemp("ws"))


def expected(
    session: Session, sample: Sample, background: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The most probable labels and their probability, at the working size, step by step."""
    cams = Artifact(session.planned["cams"].path)
    image, config = read_image(sample.image), session.config.refine
    small = working_size(image.shape[0], image.shape[1], min(config.local_side, config.max_side))
    maps = resize_maps(cams.read(sample.id, "maps"), small)
    pixels = torch.from_numpy(resize_image(image, small)).permute(2, 0, 1).float() / 255
    refined = refine_local(
        pixels, torch.from_numpy(probabilities(maps, background))[None], iterations=config.iterations
    )
    size = working_size(image.shape[0], image.shape[1], config.max_side)
    posterior = resize_maps(refined[0].numpy(), size)
    names = np.array([0, *(tag + 1 for tag in sample.tags)], np.uint8)
    return names[posterior.argmax(0)], posterior.max(0)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("refine.max_side=40", "refine.local_unsure=0.55"),
        ("refine.local_side=33",),
        ("refine.threshold=label-free",),
    ],
)
def test_masks_are_those_of_the_refiner(data: DataConfig, tmp_path: Path, extra: tuple[str, ...]) -> None:
    session = refined(data, tmp_path, *extra)
    config = session.config.refine
    background = seed_threshold(config, Artifact(session.planned["cams"].path))
    assert (background == config.background) == (config.threshold == "fixed")
    found, undecided = Artifact(session.planned["refine"].path), 0
    for sample in session.dataset.split("train").samples:
        best, surest = expected(session, sample, background)
        mask = np.where(surest < config.local_unsure, np.uint8(255), best)
        assert np.array_equal(found.read(sample.id, "labels"), resize_labels(best, sample.size))
        assert np.array_equal(found.read(sample.id, "masks"), resize_labels(mask, sample.size))
        undecided += int((mask == 255).sum())
    assert (undecided > 0) == (config.local_unsure > 0)


def test_workers_do_not_matter_and_no_process_is_started(
    session: Session, data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pool of processes")

    monkeypatch.setattr("stages.refine.ServingPool", refuse)
    again = refined(data, tmp_path, "run.workers=3")
    assert again.planned["refine"].path.name == session.planned["refine"].path.name
    assert again.planned["refine"].path.read_bytes() == session.planned["refine"].path.read_bytes()


def test_the_method_is_part_of_what_masks_depend_on(
    session: Session, data: DataConfig, tmp_path: Path
) -> None:
    crf = open_session(request(data, tmp_path))
    local = open_session(request(data, tmp_path, "refine.method=local"))
    assert crf.planned["cams"].path == local.planned["cams"].path
    assert crf.planned["refine"].path != local.planned["refine"].path


def test_reading_ahead_keeps_the_order_and_a_bounded_number(session: Session) -> None:
    samples = list(session.dataset.split("train").samples) * 3
    seeds = SeedReader(Artifact(session.planned["cams"].path), 64, 0.2)
    begun: list[Sample] = []

    class Counting(SeedReader):
        def __call__(self, sample: Sample) -> Seed:
            begun.append(sample)
            return super().__call__(sample)

    reader = Counting(seeds.cams, seeds.max_side, seeds.background)
    with ThreadPoolExecutor(READERS) as pool:
        reading = read_ahead(pool, reader, samples)
        first = next(reading)
        assert len(begun) <= 2 * READERS + 1
        rest = list(reading)
    for got, sample in zip([first, *rest], samples, strict=True):
        assert np.array_equal(got.probability, seeds(sample).probability)
        assert np.array_equal(got.image, seeds(sample).image)


def test_report_and_comparison_name_the_method(
    session: Session, data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, values = report_paths(session.run)
    assert "The seed after local refinement (2 iterations)" in page.read_text(encoding="utf-8")
    assert json.loads(values.read_text(encoding="utf-8"))["config"]["refine.method"] == "local"
    other = refined(data, tmp_path, "refine.method=crf", name="dense")
    text = report_paths(other.run)[0].read_text(encoding="utf-8")
    assert "The seed after a dense CRF (preset irn)" in text
    capsys.readouterr()
    assert main(["compare", str(values), str(report_paths(other.run)[1])]) == 0
    assert "refine.method: " in capsys.readouterr().out


def test_the_measurement_scores_both_methods(session: Session) -> None:
    run = open_run(session.run.folder.parent, "local")
    rows = measured(
        run, backgrounds=[0.15, 0.3], iterations=[1, 2], sides=[40], device=torch.device("cpu"), every=2
    )
    assert [row.title for row in rows[:3]] == [
        "crf, irn",
        "local, 1 iterations at 40",
        "local, 2 iterations at 40",
    ]
    assert [row.background for row in rows] == [0.15] * 3 + [0.3] * 3
    assert all(row.images == 6 and row.seconds > 0 and 0 < row.miou <= 1 for row in rows)
    assert len({row.miou for row in rows[:3]}) == 3
    whole = measured(run, backgrounds=[], iterations=[], sides=[], device=torch.device("cpu"), every=1)
    report = json.loads(report_paths(session.run)[1].read_text(encoding="utf-8"))
    assert whole[1].miou == pytest.approx(report["refine.miou"])
    assert whole[1].unsure == pytest.approx(report["refine.unsure_of_truth"])


def test_the_measurement_needs_masks(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=0, masks=False)
    session = refined(data, tmp_path / "ws")
    run = open_run(session.run.folder.parent, "local")
    with pytest.raises(UserError, match="no training image has a mask"):
        measured(run, backgrounds=[], iterations=[], sides=[], device=torch.device("cpu"), every=1)
