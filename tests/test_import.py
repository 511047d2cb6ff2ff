"""The command import: what comes back of an export becomes corrections, and only what changed."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from data.images import read_mask
from run_pipeline import EXIT_USER_ERROR, main
from stages.commands.export.formats import FORMATS, LabelledImage, Labelling, brush_rle
from stages.commands.export.returned import brush_mask, matching_id
from tests.products import Product
from wsss.errors import UserError
from wsss.pictures import voc_palette

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)  # pycocotools has not followed numpy 2 yet

Labels = NDArray[np.uint8]


@dataclass
class Returned:
    """A run, its exported masks, and a place for what a tool gives back of them."""

    product: Product
    masks: dict[str, Labels]
    folder: Path

    def give_back(self, name: str, masks: Mapping[str, Labels], version: str = "") -> Path:
        """These masks in a format, as a tool would write them."""
        refine = self.product.artifact("refine")
        about = Labelling(
            run="tiny",
            source="masks",
            split="train",
            fingerprint=version or refine.fingerprint,
            classes=refine.classes,
            prefix="/data/local-files/?d=",
        )
        images = [LabelledImage(key, f"{key}.jpg", labels) for key, labels in masks.items()]
        path = self.folder / "returned"
        files = dict(FORMATS[name](iter(images), about))
        if name == "voc":
            for key, content in files.items():
                if key.endswith(".png"):
                    (path / key).parent.mkdir(parents=True, exist_ok=True)
                    (path / key).write_bytes(content)
            return path / "SegmentationClass"
        main_file = next(content for key, content in files.items() if key.endswith((".zip", ".json")))
        path.write_bytes({"cvat": in_colours, "labelstudio": annotated}.get(name, bytes)(main_file))
        return path

    def imported(self, file: Path, *options: object) -> int:
        out = self.folder / "corrections"
        return main(self.product.arguments("import", "tiny", file, "--out", out, *options))

    def correction(self, name: str) -> Labels:
        return read_mask(self.folder / "corrections" / f"{name}.png")


def in_colours(archive: bytes) -> bytes:
    """CVAT writes colours, not numbers."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith(".png"):
                Image.open(io.BytesIO(data)).convert("RGB").save(image := io.BytesIO(), "PNG")
                data = image.getvalue()
            new.writestr(name, data)
    return content.getvalue()


def annotated(tasks: bytes) -> bytes:
    """Predictions become annotations when somebody submits them; an earlier try was cancelled."""
    document = json.loads(tasks)
    for task in document:
        results = task["predictions"][0]["result"]
        task["annotations"] = [
            {"was_cancelled": False, "result": results},
            {"was_cancelled": True, "result": []},
        ]
    return json.dumps(document).encode()


@pytest.fixture
def returned(product: Product, tmp_path: Path) -> Returned:
    refine = product.artifact("refine")
    masks = {image_id: refine.read(image_id, "masks") for image_id in refine.ids}
    refine.close()
    return Returned(product, masks, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voc", "coco", "cvat", "labelstudio"])
def test_only_what_changed_is_a_correction(
    returned: Returned, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = returned.give_back(name, returned.masks)
    assert returned.imported(file) == 0
    assert "0 of 6 images changed, 0 pixels" in capsys.readouterr().out
    assert not (returned.folder / "corrections").exists()
    first, second, *_ = returned.masks
    edited = dict(returned.masks)
    edited[first] = edited[first].copy()
    edited[first][10:30, 20:50] = 3
    edited[second] = np.zeros_like(edited[second])  # somebody has removed everything
    assert returned.imported(returned.give_back(name, edited)) == 0
    told = capsys.readouterr().out
    assert "2 of 6 images changed" in told
    assert "--set data.corrections=" in told
    for key in (first, second):
        before = returned.masks[key]
        exported = before if name == "voc" else np.where(before == 255, 0, before)
        wanted = np.where((edited[key] != exported) & (edited[key] != 255), edited[key], 255)
        assert (returned.correction(key) == wanted).all()
    assert len(list((returned.folder / "corrections").rglob("*.png"))) == 2


@pytest.mark.slow
def test_later_corrections_lie_on_earlier_ones(returned: Returned) -> None:
    first = next(iter(returned.masks))
    for value, rows in ((1, slice(0, 20)), (2, slice(10, 30))):
        edited = returned.masks[first].copy()
        edited[rows] = value
        assert returned.imported(returned.give_back("voc", {first: edited})) == 0
    found = returned.correction(first)
    assert set(found[:10].ravel().tolist()) <= {1, 255}  # of the first try
    assert set(found[20:30].ravel().tolist()) <= {2, 255}
    assert returned.imported(returned.give_back("voc", {first: edited}), "--whole") == 0
    assert (returned.correction(first) == np.where(edited == 255, found, edited)).all()


@pytest.mark.slow
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    returned: Returned, capsys: pytest.CaptureFixture[str]
) -> None:
    first, mask = next(iter(returned.masks.items()))
    text = returned.folder / "notes.json"
    text.write_text('{"a": 1}')
    cases = {
        "expected CVAT's archive": text,
        "cannot be read": returned.folder / "nowhere.zip",
        "among its 1 image: other.jpg; expected names such as": returned.give_back("coco", {"other": mask}),
    }
    for words, file in cases.items():
        assert returned.imported(file) == EXIT_USER_ERROR, words
        assert words in capsys.readouterr().err
    assert returned.imported(returned.give_back("coco", {first: mask}, version="0" * 16)) == EXIT_USER_ERROR
    assert "made of an export of other masks (0000000000000000;" in capsys.readouterr().err
    assert returned.imported(returned.give_back("cvat", {first: mask[:-1]})) == EXIT_USER_ERROR
    assert "masks do not fit" in capsys.readouterr().err
    wrong = returned.give_back("labelstudio", {first: np.full_like(mask, 3)})
    classes = returned.product.artifact("refine").classes
    wrong.write_text(wrong.read_text().replace(classes[2], "weed"))
    assert returned.imported(wrong) == EXIT_USER_ERROR
    assert "class 'weed' is none of this run's" in capsys.readouterr().err
    whole = returned.give_back("cvat", {first: mask})
    whole.write_bytes(whole.read_bytes()[:-200])  # no archive any more
    assert returned.imported(whole) == EXIT_USER_ERROR
    assert not (returned.folder / "corrections").exists()


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 40))))
def test_a_brush_is_read_as_it_is_written(mask: NDArray[np.bool_]) -> None:
    assert (brush_mask(brush_rle(mask), (mask.shape[0], mask.shape[1]), "x") == mask).all()


LITERAL = [
    *(0, 0, 0, 24, 57, 27, 252, 96, 0, 4, 128, 16, 0, 56, 31, 241, 128, 79, 254, 0, 8, 0, 64, 1, 128, 0),
]
"""What label-studio-sdk 2.1.2 packs 2x3 RGBA pixels into: values that differ stand one by one."""


def test_a_brush_of_label_studio_itself() -> None:
    assert brush_mask(LITERAL, (2, 3), "x").tolist() == [[False, True, False], [True, True, False]]
    for wrong in (LITERAL[:-8], [], [255] * 30):
        with pytest.raises(UserError, match="tasks: its brush is not of 3x2 pixels"):
            brush_mask(wrong, (2, 3), "tasks")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a/b.jpg", "a/b"),
        ("b.jpg", None),
        ("/data/local-files/?d=some%20folder/a/b.jpg", "a/b"),
        ("/data/upload/3/0a1b2c3d-c.d.png", "c.d"),
        ("..\\x\\a\\b.png", "a/b"),
        ("", None),
    ],
)
def test_names_with_something_before_them_are_recognised(name: str, wanted: str | None) -> None:
    assert matching_id(name, dict.fromkeys(["a/b", "c.d"])) == wanted


@pytest.mark.slow
def test_cvat_colours_beyond_its_label_map_are_refused(
    returned: Returned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(content, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("labelmap.txt", f"background:{','.join(map(str, voc_palette()[0]))}::\n")
        archive.writestr("SegmentationClass/x.png", content.getvalue())
    assert returned.imported(tmp_path / "a.zip") == EXIT_USER_ERROR
    assert "has colours that labelmap.txt does not name" in capsys.readouterr().err
