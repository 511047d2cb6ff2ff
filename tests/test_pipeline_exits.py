"""What exits are good for beyond training: maps fused from several of them, and their own predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from stages.commands.report import report_paths
from stages.commands.report.measure import measure, read_metrics
from stages.commands.run import run_all, run_stage
from stages.commands.session import Session, open_session
from tests.networks import tiny_multi_exit
from tests.pipelines import request
from tests.trees import make_folder_tree
from wsss.cams import exit_probabilities, label_probabilities
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.model.multi_exit import MultiExitNetwork
from wsss.store.artifacts import Artifact, DamagedArtifactError, parts_of

pytestmark = pytest.mark.slow
EXITS = ("classify.exits=[2, 4]", "run.precision=fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=5, n_val=2)


@pytest.fixture(scope="module")
def workspace(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose CAMs are the deepest exit's."""
    root = tmp_path_factory.mktemp("ws")
    run_all(request(data, root, *EXITS))
    return root


def maps_of(session: Session) -> dict[str, NDArray[np.float32]]:
    cams = Artifact(session.planned["cams"].path)
    return {image_id: cams.read(image_id, "maps").astype(np.float32) for image_id in cams.ids}


def cams_with(data: DataConfig, workspace: Path, *extra: str) -> Session:
    name = "-".join(
        ["fused", *(text.partition("=")[2].strip("[]") for text in extra)]
    )  # starts from no other run
    wanted = request(data, workspace, *EXITS, *extra, name=name.replace(",", " "))
    run_stage(wanted, "cams", force=False)
    return open_session(wanted)


@pytest.mark.parametrize("fusion", ["mean", "product"])
def test_fused_cams_differ_and_stay_in_range(data: DataConfig, workspace: Path, fusion: str) -> None:
    plain = maps_of(open_session(request(data, workspace, *EXITS)))
    session = cams_with(data, workspace, "cams.exits=[2, 4]", f"cams.fusion={fusion}")
    fused = maps_of(session)
    assert plain.keys() == fused.keys()
    assert all(((maps >= 0) & (maps <= 1)).all() for maps in fused.values())
    assert any((plain[image_id] != fused[image_id]).any() for image_id in plain)
    assert read_metrics(measure(session)["cams"])["scored_images"] == 5


def test_exits_of_no_weight_leave_the_deepest_as_it_is(data: DataConfig, workspace: Path) -> None:
    plain = maps_of(open_session(request(data, workspace, *EXITS)))
    fused = maps_of(cams_with(data, workspace, "cams.exits=[4]", "cams.exit_weight=0"))
    assert all((plain[image_id] == fused[image_id]).all() for image_id in plain)


def test_maps_of_the_classifier_of_cells_are_the_same_after_an_interruption(
    data: DataConfig, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = maps_of(open_session(request(data, workspace, *EXITS)))
    cells = ("cams.cells=[3, 4]", "cams.propagate=[3]")
    session = cams_with(data, workspace, *cells)
    path, maps = session.planned["cams"].path, maps_of(session)
    assert all(((each >= 0) & (each <= 1)).all() for each in maps.values())
    assert any((plain[image_id] != maps[image_id]).any() for image_id in plain)
    whole = path.read_bytes()
    path.unlink()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("stages.cams.cell_cams_of", stop)  # the first pass is over
        with pytest.raises(KeyboardInterrupt):
            cams_with(data, workspace, *cells)
    assert (parts_of(path) / "first.h5").exists()
    monkeypatch.setattr("stages.cams.labelled_cams_of", stop)  # and is not computed again
    cams_with(data, workspace, *cells)
    assert path.read_bytes() == whole
    assert not parts_of(path).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cams.exits=[3]",), r"cams\.exits = \[3\].*classify\.exits = \[2, 4\] makes \[2, 4\]"),
        (("cams.exits=[5]",), r"cams\.exits = \[5\].*the deepest is always part"),
        (("cams.cells=[6]",), r"cams\.cells = \[6\].*blocks from 1 to 5"),
        (("cams.exits=[6]", "classify.exits=[]"), r"cams\.exits = \[6\].*makes \[1, 2, 3, 4\]"),
        (
            ("cams.exits=[2]", "classify.mea=false"),
            r"cams\.exits = \[2\].*classify\.mea = false.*cams\.exits=\[\]",
        ),
    ],
)
def test_exits_that_the_classifier_lacks_are_refused_before_any_work(
    data: DataConfig, tmp_path: Path, change: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_all(request(data, tmp_path, *EXITS, *change))
    assert not list(tmp_path.rglob("*.h5"))


def test_predictions_of_exits_are_stored_for_validation_images_alone(
    data: DataConfig, workspace: Path
) -> None:
    session = open_session(request(data, workspace, *EXITS))
    artifact = Artifact(session.planned["segment"].path)
    assert artifact.group("predicting_exits")["blocks"].tolist() == [1, 2, 3, 4]
    for sample in session.dataset.samples:
        if sample.split == "val":
            found = artifact.read(sample.id, "exit_predictions")
            assert found.shape == (4, *sample.size)
            assert found.dtype == np.uint8
            assert found.max() <= len(session.dataset.classes)
        elif sample.id in artifact:  # shown in the overview
            with pytest.raises(DamagedArtifactError, match="exit_predictions"):
                artifact.read(sample.id, "exit_predictions")
    assert read_metrics(measure(session)["segment"])["exits.blocks"] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", ["segment.mea=false", "segment.exits=[5]"])
def test_exits_that_learn_nothing_or_are_not_there_predict_nothing(
    data: DataConfig, tmp_path: Path, change: str
) -> None:
    wanted = request(data, tmp_path, "segment.supervision=full", change)
    run_all(wanted)
    session = open_session(wanted)
    artifact = Artifact(session.planned["segment"].path)
    assert artifact.group("predicting_exits")["blocks"].tolist() == []
    with pytest.raises(DamagedArtifactError, match="exit_predictions"):
        artifact.read("val_005", "exit_predictions")
    assert not [key for key in read_metrics(measure(session)["segment"]) if key.startswith("exits.")]
    page = report_paths(session.run)[0].read_text(encoding="utf-8")
    assert "<h3>Exits</h3>" not in page


def test_an_exit_predicts_in_the_way_of_the_deployed_network() -> None:
    network = tiny_multi_exit(3).eval()
    image = torch.rand(3, 21, 30, generator=torch.Generator().manual_seed(0))
    got = exit_probabilities(network, image, scales=[1.0, 0.5], flip=True)
    assert len(got) == 3
    for index, probability in enumerate(got):
        single = Single(network, index)
        wanted = label_probabilities(single, image, scales=[1.0, 0.5], flip=True)  # type: ignore[arg-type]
        assert torch.equal(probability, wanted)
        assert torch.allclose(probability.sum(0), torch.ones(21, 30), atol=1e-5)


class Single(nn.Module):
    """One exit alone, as if it were a whole network."""

    def __init__(self, network: MultiExitNetwork, index: int) -> None:
        super().__init__()
        self.network, self.index = network, index

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.network(images).class_maps[self.index]
        return maps
