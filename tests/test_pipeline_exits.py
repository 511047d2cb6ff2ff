"""What exits are good for beyond training: maps fused from several of them, and their own predictions."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.commands import Session, open_session, run_all, run_stage
from tests.pipelines import request
from tests.trees import make_folder_tree
from wsss.artifacts import Artifact
from wsss.config import DataConfig
from wsss.errors import UserError

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
    assert session.measures()["cams"]["scored_images"] == 5


def test_exits_of_no_weight_leave_the_deepest_as_it_is(data: DataConfig, workspace: Path) -> None:
    plain = maps_of(open_session(request(data, workspace, *EXITS)))
    fused = maps_of(cams_with(data, workspace, "cams.exits=[4]", "cams.exit_weight=0"))
    assert all((plain[image_id] == fused[image_id]).all() for image_id in plain)


def test_fused_cams_do_not_see_masks(data: DataConfig, workspace: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(data.root, tmp_path / "data"))
    for mask in (moved / "masks").iterdir():
        mask.unlink()
    bare = DataConfig(source=data.source, root=str(moved))
    run_stage(request(bare, tmp_path / "ws", *EXITS), "classify", force=False)
    paths = [
        cams_with(source, root, "cams.exits=[4]").planned["cams"].path
        for source, root in ((data, workspace), (bare, tmp_path / "ws"))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cams.exits=[3]",), r"cams\.exits = \[3\].*classify\.exits = \[2, 4\] makes \[2, 4\]"),
        (("cams.exits=[5]",), r"cams\.exits = \[5\].*the deepest is always part"),
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


def test_a_single_stage_refuses_them_too(data: DataConfig, workspace: Path) -> None:
    with pytest.raises(UserError, match=r"cams\.exits = \[3\]"):
        cams_with(data, workspace, "cams.exits=[3]")
