"""Stage `cams` with its network in integers: used where the photographs' CAMs hardly change, and only there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import stages.cams
from stages.commands.session import open_session, run_stage
from tests.pipelines import request
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.runtime.device import multiplies_integers
from wsss.store.artifacts import Artifact

pytestmark = pytest.mark.skipif(not multiplies_integers(), reason="this processor has no VNNI")

TRAINED = "classify.weights=bundled", "classify.output_stride=16"
"""A network that sees something in the photographs: of random weights CAMs are noise, and errors are all there is."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=6, n_val=2)


@pytest.fixture(scope="module")
def workspace(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ws")
    run_stage(request(data, root, *TRAINED), "classify", force=False)
    return root


def _maps(
    data: DataConfig, workspace: Path, *extra: str
) -> tuple[list[NDArray[np.float32]], list[dict[str, Any]]]:
    """All maps of a run of the stage, and what the run's log says of integers."""
    wanted = request(data, workspace, *TRAINED, *extra)
    log = workspace / "tiny" / "log.jsonl"
    before = len(log.read_text().splitlines())
    run_stage(wanted, "cams", force=True)
    events = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    artifact = Artifact(open_session(wanted).planned["cams"].path)
    maps = [artifact.read(image_id, "maps").astype(np.float32) for image_id in artifact.ids]
    artifact.close()
    return maps, [event for event in events if event.get("event") == "integers"]


def test_integers_are_used_where_cams_hardly_change(
    data: DataConfig, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stages.cams, "TRIAL_DIFFERENCE", 0.2
    )  # photographs of 48 pixels, a network of a second
    floats, silent = _maps(data, workspace, "run.precision=fp32")
    integers, events = _maps(data, workspace, "run.precision=auto")
    again, _ = _maps(data, workspace, "run.precision=auto")
    assert silent == []
    assert [event["used"] for event in events] == [True]
    assert 0 < events[0]["mean_difference"] <= 0.2
    distances = [float(np.abs(one - other).mean()) for one, other in zip(floats, integers, strict=True)]
    assert 0 < np.mean(distances) < 0.2
    for one, other in zip(integers, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_integers_are_not_used_where_cams_change(
    data: DataConfig, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.cams, "TRIAL_DIFFERENCE", 1e-9)
    floats, _ = _maps(data, workspace, "run.precision=fp32")
    found, events = _maps(data, workspace, "run.precision=auto")
    assert [event["used"] for event in events] == [False]
    assert events[0]["mean_difference"] > 1e-9
    for one, other in zip(floats, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_is_tried_where_the_network_cannot_be_put_in_integers(
    data: DataConfig, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.cams, "quantised", lambda network: network)
    floats, _ = _maps(data, workspace, "run.precision=fp32")
    found, events = _maps(data, workspace, "run.precision=auto")
    assert events == []
    for one, other in zip(floats, found, strict=True):
        np.testing.assert_array_equal(one, other)
