"""Stage refine: masks are those of the refiner, whatever the workers; its threshold is stored; the report names it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from run_pipeline import main
from stages.commands.report import report_paths
from stages.commands.run import run_stage
from stages.commands.session import Session, open_session
from tests.pipelines import ROOT, request
from tests.reports import synthetic_artifacts
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.crf import PRESETS, dense_crf, probabilities
from wsss.par import refine_local
from wsss.resize import resize_image, resize_labels, resize_maps, working_size
from wsss.store.artifacts import Artifact

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=12, n_val=2)


def refined(data: DataConfig, workspace: Path, *changes: str, name: str = "refined") -> Session:
    """A run with synthetic CAMs whose stage refine is computed."""
    synthetic_artifacts(data, workspace, *changes, name=name, stages=("classify", "cams"))
    run_stage(request(data, workspace, *changes, name=name), "refine", force=False)
    return open_session(request(data, workspace, *changes, name=name))


def posterior(session: Session, sample: Sample, background: float) -> NDArray[np.floating]:
    """(K + 1, h, w) at the working size, step by step."""
    cams = Artifact(session.planned["cams"].path)
    image, config = read_image(sample.image), session.config.refine
    size = working_size(image.shape[0], image.shape[1], config.max_side)
    if config.method == "crf":
        seed = probabilities(resize_maps(cams.read(sample.id, "maps"), size), background)
        return dense_crf(
            resize_image(image, size), seed, PRESETS[config.preset], iterations=config.iterations
        )
    small = working_size(image.shape[0], image.shape[1], min(config.local_side, config.max_side))
    seed = probabilities(resize_maps(cams.read(sample.id, "maps"), small), background)
    pixels = torch.from_numpy(resize_image(image, small)).permute(2, 0, 1).float() / 255
    refined = refine_local(pixels, torch.from_numpy(seed)[None], iterations=config.iterations)
    return resize_maps(refined[0].numpy(), size)


@pytest.mark.parametrize(
    "changes",
    [
        ("refine.method=crf",),
        ("refine.method=local", "refine.max_side=40", "refine.local_unsure=0.55"),
        ("refine.method=local", "refine.local_side=33"),
        ("refine.method=local", "refine.threshold=label-free"),
    ],
)
def test_masks_are_those_of_the_refiner(data: DataConfig, tmp_path: Path, changes: tuple[str, ...]) -> None:
    session = refined(data, tmp_path, *changes)
    config, found = session.config.refine, Artifact(session.planned["refine"].path)
    background = float(found.group("seed")["threshold"])
    assert (background == config.background) == (config.threshold == "fixed")
    unsure = config.unsure if config.method == "crf" else config.local_unsure
    uncertain = 0
    for sample in session.dataset.split("train").samples:
        wanted = posterior(session, sample, background)
        names = np.array([0, *(tag + 1 for tag in sample.tags)], np.uint8)
        best = names[wanted.argmax(0)]
        mask = np.where(wanted.max(0) < unsure, np.uint8(255), best)
        assert np.array_equal(found.read(sample.id, "labels"), resize_labels(best, sample.size))
        assert np.array_equal(found.read(sample.id, "masks"), resize_labels(mask, sample.size))
        uncertain += int((mask == 255).sum())
    assert (uncertain > 0) == (unsure > 0)


@pytest.mark.parametrize("method", ["crf", "local"])
def test_workers_do_not_matter(data: DataConfig, tmp_path: Path, method: str) -> None:
    paths = [
        refined(data, tmp_path / count, f"refine.method={method}", f"run.workers={count}")
        .planned["refine"]
        .path
        for count in ("1", "3")
    ]
    assert paths[0].name == paths[1].name
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_processes_of_the_crf_import_no_torch() -> None:
    code = "import sys, stages.refine; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_the_method_is_part_of_what_masks_depend_on(data: DataConfig, tmp_path: Path) -> None:
    crf = open_session(request(data, tmp_path))
    local = open_session(request(data, tmp_path, "refine.method=local"))
    assert crf.planned["cams"].path == local.planned["cams"].path
    assert crf.planned["refine"].path != local.planned["refine"].path


def test_report_and_comparison_name_the_method(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = refined(data, tmp_path / "local", "refine.method=local")
    page, values = report_paths(local.run)
    assert "The seed after local refinement (2 iterations)" in page.read_text(encoding="utf-8")
    assert json.loads(values.read_text(encoding="utf-8"))["config"]["refine.method"] == "local"
    other = refined(data, tmp_path / "crf", "refine.method=crf", name="dense")
    text = report_paths(other.run)[0].read_text(encoding="utf-8")
    assert "The seed after a dense CRF (preset irn)" in text
    capsys.readouterr()
    assert main(["compare", str(values), str(report_paths(other.run)[1])]) == 0
    assert "refine.method: " in capsys.readouterr().out
