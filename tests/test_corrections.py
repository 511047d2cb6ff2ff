"""Masks beside the data set: corrections drawn by hand, and those of another program; who sees them, what they do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stages.commands.report.measure import measure, read_metrics
from stages.commands.run import run_all, run_stage
from stages.commands.session import Session, open_session
from tests.pipelines import request
from tests.reports import synthetic_artifacts
from tests.trees import make_folder_tree
from wsss import IGNORE
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.store.artifacts import Artifact

Labels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=6, n_val=2)


def truth(data: DataConfig, name: str) -> Labels:
    with Image.open(Path(data.root) / "masks" / f"{name}.png") as image:
        return np.array(image)


def drawn(folder: Path, **masks: Labels) -> str:
    folder.mkdir(exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    return str(folder)


def scribble(data: DataConfig, name: str) -> Labels:
    """Two lines through an image: its labels there, nothing elsewhere."""
    whole = truth(data, name)
    mask = np.full_like(whole, IGNORE)
    mask[whole.shape[0] // 2], mask[:, 3] = whole[whole.shape[0] // 2], whole[:, 3]
    return mask


def masks(session: Session, name: str, field: str = "masks") -> Labels:
    found = Artifact(session.planned["refine"].path)
    array = found.read(name, field)
    found.close()
    return array


def refined(data: DataConfig, workspace: Path, *changes: str, name: str) -> Session:
    """A run with synthetic CAMs whose stage refine is computed."""
    synthetic_artifacts(data, workspace, *changes, name=name, stages=("classify", "cams"))
    run_stage(request(data, workspace, *changes, name=name), "refine", force=False)
    return open_session(request(data, workspace, *changes, name=name))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crf", "local"])
def test_corrections_stand_in_the_masks_and_spread(data: DataConfig, tmp_path: Path, method: str) -> None:
    plain = refined(data, tmp_path, f"refine.method={method}", name="plain")
    given = truth(data, "train_000")
    wrong = np.full_like(given, IGNORE)
    wrong[5:20, 5:20] = 0 if given[12, 12] else given.max()  # somebody insists on what the CAMs do not say
    folder = drawn(tmp_path / "c", train_000=wrong, train_001=np.full_like(given, IGNORE))
    session = refined(
        data, tmp_path, f"refine.method={method}", f"data.corrections={folder}", name="corrected"
    )
    fingerprints = [
        [each.planned[name].stamp.fingerprint for name in ("classify", "cams", "refine", "segment")]
        for each in (plain, session)
    ]
    assert fingerprints[0][:2] == fingerprints[1][:2]  # weak stages know nothing of it
    assert not set(fingerprints[0][2:]) & set(fingerprints[1][2:])
    for field in ("masks", "labels"):
        found, before = masks(session, "train_000", field), masks(plain, "train_000", field)
        assert (found[5:20, 5:20] == wrong[5:20, 5:20]).all()
        assert (found != before)[wrong == IGNORE].any()  # what lies beside it has changed too
        for other in ("train_001", "train_002"):  # one says nothing, the other has none
            assert (masks(session, other, field) == masks(plain, other, field)).all()
    values = read_metrics(measure(session)["refine"])
    assert values["corrected.images"] == 1
    assert 0 <= values["corrected.miou"] <= 1
    assert "train_000" not in values["per_image.id"]
    assert values["scored_images"] == len(values["truth"]) == 5


@pytest.mark.slow
def test_the_segmenter_learns_from_corrections(data: DataConfig, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "c", train_000=scribble(data, "train_000"), val_007=scribble(data, "val_007"))
    asked = (f"data.corrections={folder}", "segment.correction_weight=4")
    synthetic_artifacts(data, tmp_path / "ws", *asked, name="tiny", stages=("classify", "cams"))
    run_all(request(data, tmp_path / "ws", *asked))
    log = (tmp_path / "ws" / "tiny" / "log.jsonl").read_text()
    session = open_session(request(data, tmp_path / "ws", *asked))
    assert "val_007" in " ".join(session.dataset.notes)  # said, not used
    assert [sample.id for sample in session.dataset.samples if sample.correction] == ["train_000"]
    assert '"epoch": 1' in log
    page = (tmp_path / "ws" / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "1 image with corrections: learned from, and kept apart" in page
    assert "what somebody has corrected by hand" in page


def test_a_correction_reaches_ground_truth_under_full_supervision(data: DataConfig, tmp_path: Path) -> None:
    from data.loading import ground_truth

    mask = scribble(data, "train_000")
    mask[0, 0] = 1
    folder = drawn(tmp_path / "c", train_000=mask)
    changes = ("segment.supervision=full", f"data.corrections={folder}")
    session = open_session(request(data, tmp_path / "ws", *changes), writable=False)
    plain = open_session(request(data, tmp_path / "ws", changes[0]), writable=False)
    sample = next(sample for sample in session.dataset.samples if sample.id == "train_000")
    assert (ground_truth(sample) == np.where(mask == IGNORE, truth(data, "train_000"), mask)).all()
    stamps = [each.planned["segment"].stamp.fingerprint for each in (session, plain)]
    assert stamps[0] != stamps[1]


def beyond(mask: Labels) -> Labels:
    return np.where(mask == 0, np.uint8(9), mask)


@pytest.mark.parametrize("kind", ["data.corrections", "refine.masks"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mask: mask[:-1], r"train_000\.png is \d+x\d+ .*its image"),
        (beyond, r"train_000\.png has labels beyond the 3 classes: 9"),
        (None, "no PNG in .* is named by a training image .*expected train_000.png"),
    ],
)
def test_masks_that_do_not_fit_are_refused_before_any_work(
    data: DataConfig, tmp_path: Path, kind: str, change: Callable[[Labels], Labels] | None, words: str
) -> None:
    mask = truth(data, "train_000")
    given = {"train_000": change(mask)} if change else {"other": mask}
    changes = [f"{kind}={drawn(tmp_path / 'c', **given)}", *(["refine.method=import"] * (kind[0] == "r"))]
    with pytest.raises(UserError, match=words):
        run_all(request(data, tmp_path / "ws", *changes))
    changes[0] = f"{kind}={tmp_path / 'none'}"
    with pytest.raises(UserError, match=f"{kind}: .*none is no folder"):
        run_all(request(data, tmp_path / "ws", *changes))
    assert not list((tmp_path / "ws").rglob("*.h5"))


@pytest.mark.slow
@pytest.mark.parametrize("hold", [False, True])
def test_masks_of_another_program_take_the_place_of_ours(
    data: DataConfig, tmp_path: Path, hold: bool
) -> None:
    foreign = {f"train_{i:03d}": truth(data, f"train_{i:03d}") for i in range(5)}
    foreign["train_000"][:4] = 255
    tags = {int(label) for label in np.unique(foreign["train_001"]) if label not in (0, 255)}
    untagged = next(label for label in (1, 2, 3) if label not in tags)
    foreign["train_001"][:4] = untagged
    folder = drawn(tmp_path / "sam", **foreign)
    asked = ("refine.method=import", f"refine.masks={folder}", f"refine.hold_to_tags={str(hold).lower()}")
    run_all(request(data, tmp_path / "ws", *asked))
    session = open_session(request(data, tmp_path / "ws", *asked))
    assert list(session.planned) == ["refine", "segment"]  # nothing of ours is needed
    assert "refine.masks: 5 of 6 training images" in session.dataset.notes
    assert "refine.masks: 1 image with classes beside the tags" in session.dataset.notes
    wanted = dict(foreign)
    if hold:
        wanted["train_001"] = np.where(foreign["train_001"] == untagged, np.uint8(255), foreign["train_001"])
    for name, mask in wanted.items():
        assert (masks(session, name) == mask).all(), name
        assert (masks(session, name, "labels") == np.where(mask == 255, 0, mask)).all(), name
    assert (masks(session, "train_005") == 255).all()  # without one it teaches its tags alone
    page = (tmp_path / "ws" / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "Masks of another program" in page
    moved = (tmp_path / "sam").rename(tmp_path / "elsewhere")
    elsewhere = open_session(request(data, tmp_path / "ws", asked[0], f"refine.masks={moved}", asked[2]))
    assert all(item.cached for item in elsewhere.planned.values())  # named by content


def test_import_without_a_folder_is_refused(data: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"refine\.masks = ''"):
        open_session(request(data, tmp_path, "refine.method=import"))
