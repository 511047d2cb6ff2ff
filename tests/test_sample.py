"""The shipped sample: what is on disk agrees with itself, with its licence, and teaches what it should."""

import csv
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.trees import voc_palette

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
CLASSES = (SAMPLE / "classes.txt").read_text(encoding="utf-8").splitlines()


@cache
def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@cache
def read_mask(image: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(SAMPLE / "masks" / f"{Path(image).stem}.png"))


def test_counts_and_names() -> None:
    assert Counter(row["split"] for row in rows("labels.csv")) == {"train": 240, "val": 60}
    images = [row["image"] for row in rows("labels.csv")]
    assert sorted(images) == sorted(path.name for path in (SAMPLE / "images").iterdir())
    assert sorted(Path(image).stem for image in images) == sorted(
        p.stem for p in (SAMPLE / "masks").iterdir()
    )
    assert all(row["image"].startswith(f"{row['split']}_") for row in rows("labels.csv"))
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 12_000_000


def test_masks_fit_their_images_and_tags_and_have_the_colours_of_voc() -> None:
    for row in rows("labels.csv"):
        mask = read_mask(row["image"])
        with Image.open(SAMPLE / "images" / row["image"]) as image:
            assert image.mode == "RGB"
            assert image.size in {(256, 192), (192, 256)}
            assert image.size[::-1] == mask.shape
        with Image.open(SAMPLE / "masks" / f"{Path(row['image']).stem}.png") as file:
            assert (file.mode, (file.getpalette() or [])[:21]) == ("P", voc_palette()[:21])
        values = [value for value in np.unique(mask) if value]
        assert row["tags"].split(";") == [CLASSES[value - 1] for value in values]
        assert all(np.count_nonzero(mask == value) >= 0.003 * mask.size for value in values), row["image"]


def test_no_source_in_both_splits() -> None:
    for column in ("cutouts", "background"):
        used: dict[str, set[str]] = defaultdict(set)
        for row in rows("sources.csv"):
            used[row["split"]].update(row[column].split(";"))
        assert used["train"]
        assert used["val"]
        assert not used["train"] & used["val"]


def test_classes_are_balanced_and_backgrounds_do_not_give_them_away() -> None:
    for split, fewest in (("train", 35), ("val", 10)):
        counts = Counter(
            tag for row in rows("labels.csv") if row["split"] == split for tag in row["tags"].split(";")
        )
        assert set(counts) == set(CLASSES)
        assert min(counts.values()) >= fewest
        assert max(counts.values()) <= 1.3 * min(counts.values())
    tags = {row["image"]: row["tags"].split(";") for row in rows("labels.csv")}
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows("sources.csv"):
        seen[row["background"]].update(tags[row["image"]])
    assert all(max(counts.values()) <= 0.4 * counts.total() for counts in seen.values())


def test_the_licence_says_where_every_picture_comes_from() -> None:
    assert [row["image"] for row in rows("sources.csv")] == [row["image"] for row in rows("labels.csv")]
    licence = (SAMPLE / "LICENSE").read_text(encoding="utf-8")
    assert all(row["background"] in licence for row in rows("sources.csv"))
    assert all(row["cutouts"] for row in rows("sources.csv"))
    assert "tuxpaint-stamps-default" in licence
    assert "git log -- data/sample/compose.py" in licence
    assert "Version 2, June 1991" in (SAMPLE / "GPL-2.txt").read_text(encoding="utf-8")
