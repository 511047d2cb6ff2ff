"""What `survey` says of a data set, and which images count as nearly the same."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from data import open_dataset
from data.survey import Survey, near_pairs, perceptual_hashes, survey
from tests.trees import UInt8, make_folder_tree, write_csv, write_jpeg, write_png
from wsss.config import DataConfig


def smooth_image(seed: int, size: tuple[int, int] = (90, 120)) -> Image.Image:
    """Smooth random shapes: coarse content, as photos have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize(size[::-1], Image.Resampling.BICUBIC)


def plant(root: Path, rows: Sequence[tuple[str, str, str]]) -> Survey:
    """A folder of images, one per row, each another unless it is there already."""
    for number, (name, _, _) in enumerate(rows):
        path = root / "images" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            smooth_image(number).save(path, quality=90)
    write_csv(root / "labels.csv", rows)
    config = DataConfig(root=str(root))
    return survey(open_dataset(config), config)


def told(found: Survey, start: str) -> str:
    (problem,) = [text for text in found.problems if text.startswith(start)]
    return problem


def many(tags: Sequence[str], split: str = "train") -> list[tuple[str, str, str]]:
    return [(f"{split}{number:03d}.jpg", tag, split) for number, tag in enumerate(tags)]


def test_counts(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, n_train=6, n_val=3, size=(70, 90))
    (tmp_path / "masks" / "val_008.png").unlink()
    found = survey(open_dataset(config), config)
    training, validation = found.splits
    assert (training.name, training.images, training.masks, training.untagged) == ("train", 6, 6, 0)
    assert (validation.name, validation.images, validation.masks) == ("val", 3, 2)
    assert training.per_class == (3, 3, 3)
    assert validation.per_class == (2, 2, 1)
    assert (found.short_side, found.long_side) == ((70, 70, 70), (90, 90, 90))


def test_a_good_set_has_no_problem(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, n_train=60, n_val=6, size=(70, 90))
    found = survey(open_dataset(config), config)
    assert [text for text in found.problems if not text.startswith("alike")] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda mask: mask, ""),
        (lambda mask: np.where(mask > 0, 255, 0), "Likely 255 is the object there"),
        (lambda mask: mask - 1, "Likely labels start at 0 there"),  # background becomes 255
        (
            lambda mask: np.where(mask == 0, 3, mask - 1),
            "Likely labels start at 0 there",
        ),  # background is the last
        (
            lambda mask: np.array([0, 2, 3, 1])[mask],
            "Likely another order of classes: 1 is diamond, 2 is disc, 3 is square",
        ),
        (lambda mask: np.where(mask == 1, 2, mask), "correct tags or masks"),
    ],
)
def test_masks_are_compared_with_tags(tmp_path: Path, change: Callable[[UInt8], UInt8], reason: str) -> None:
    config = make_folder_tree(tmp_path, n_train=12, n_val=3, size=(70, 90))
    for path in (tmp_path / "masks").iterdir():
        with Image.open(path) as image:
            write_png(path, change(np.array(image)).astype(np.uint8))
    data = open_dataset(config)
    if not reason:
        assert not any(text.startswith("masks are") for text in survey(data, config).problems)
        return
    problem = told(survey(data, config), "masks are not the tags")
    assert (
        "of 15 masks show other classes than their image is tagged with (train_000: tags disc, square"
        in problem
    )
    assert reason in problem
    assert not any(text.startswith("masks are") for text in survey(data.weak(), config).problems)


def test_rare_classes(tmp_path: Path) -> None:
    found = plant(tmp_path, many(["cat"] * 12 + ["dog"] * 9 + ["owl"] * 2))
    assert "2 classes with fewer than 10 training images: owl (2), dog (9)." in told(found, "rare")


def test_tags_that_always_come_together(tmp_path: Path) -> None:
    found = plant(tmp_path, many(["cat;sofa"] * 10 + ["dog"] * 10 + ["dog;lead"] * 5))
    assert "always together in training: cat = sofa." in told(found, "inseparable")
    assert "never alone: lead (with dog)." in told(found, "never alone")


def test_a_tag_on_every_image(tmp_path: Path) -> None:
    found = plant(tmp_path, many(["cat"] * 12))
    assert told(found, "everywhere").startswith("everywhere: cat in nearly every training image")


def test_validation_that_is_missing_or_lacks_a_class(tmp_path: Path) -> None:
    assert told(plant(tmp_path / "a", many(["cat", "dog"])), "no validation images")
    found = plant(tmp_path / "b", [*many(["cat", "dog"]), *many(["dog"], "val")])
    assert "no validation image of cat" in told(found, "not validated")
    assert told(found, "no masks: results can be looked at")


def test_masks_of_one_split_alone(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, n_train=6, n_val=3)
    for split, said in (("val", "no masks of validation images"), ("train", "no masks of training images")):
        aside = [path.rename(tmp_path / path.name) for path in (tmp_path / "masks").glob(f"{split}*")]
        assert told(survey(open_dataset(config), config), said)
        for path in aside:
            path.rename(tmp_path / "masks" / path.name)


def test_tiny_images(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "images" / "train001.jpg", np.zeros((40, 200, 3), np.uint8))
    assert "1 image with a side below 64 pixels: train001" in told(
        plant(tmp_path, many(["cat", "dog"])), "tiny"
    )


def test_copies(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, names in enumerate((("train000", "val000"), ("train001", "train002"))):
        for name in names:
            smooth_image(50 + number).save(folder / f"{name}.jpg")
    found = plant(tmp_path, [*many(["cat", "cat", "dog", "cat"]), *many(["cat", "dog"], "val")])
    assert "1 image, byte by byte: train000 = val000" in told(found, "in both splits")
    assert "with different tags: train001 = train002" in told(found, "contradicting")
    assert "1 image more than once in training: train001 = train002" in told(found, "copies")
    assert not [text for text in found.problems if text.startswith("alike")]  # bytes say it already


def test_nearly_the_same_across_splits(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    smooth_image(77).save(folder / "train000.jpg", quality=95)
    smooth_image(77).resize((80, 60)).save(folder / "val000.jpg", quality=60)
    found = plant(tmp_path, [*many(["cat", "dog", "dog"]), *many(["cat", "dog"], "val")])
    assert "1 pair of nearly the same image: train000 and val000" in told(found, "alike")


def test_links_out_of_the_folder_are_said(tmp_path: Path) -> None:
    root = tmp_path / "d"
    found = plant(root, many(["cat", "dog"]))
    assert not [text for text in found.problems if text.startswith("links")]
    (root / "images" / "train001.jpg").rename(tmp_path / "elsewhere.jpg")
    (root / "images" / "train001.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    assert "1 image outside" in told(plant(root, many(["cat", "dog"])), "links")
    (root / "images").rename(tmp_path / "images")
    (root / "images").symlink_to(tmp_path / "images")
    assert "2 images outside" in told(plant(root, many(["cat", "dog"])), "links")


# ---- perceptual hashes


def changed(image: Image.Image) -> list[Image.Image]:
    W, H = image.size
    return [
        image.resize((W * 2 // 3, H * 2 // 3)),
        image.crop((1, 1, W - 1, H - 1)),
        ImageEnhance.Brightness(image).enhance(0.8),
    ]


def saved(folder: Path, images: Sequence[Image.Image]) -> list[Path]:
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"{number}.jpg")
        image.save(paths[-1], quality=70)
    return paths


def test_changed_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    originals = [smooth_image(seed) for seed in range(40)]
    hashes = perceptual_hashes(saved(tmp_path, originals), progress=False)
    assert [(a, b) for a, b in near_pairs(hashes, hashes) if a != b] == []
    for variant in range(3):
        again = saved(tmp_path, [changed(image)[variant] for image in originals])
        pairs = list(near_pairs(hashes, perceptual_hashes(again, progress=False)))
        assert all(a == b for a, b in pairs)
        assert len(pairs) >= 38


def test_blank_images_are_like_nothing(tmp_path: Path) -> None:
    blank: UInt8 = np.full((50, 60, 3), 200, np.uint8)
    for name in ("a", "b"):
        write_jpeg(tmp_path / f"{name}.jpg", blank)
    hashes = perceptual_hashes([tmp_path / "a.jpg", tmp_path / "b.jpg"], progress=False)
    assert list(near_pairs(hashes, hashes)) == []


def test_pairs_are_found_across_blocks() -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(1, 2**63, (700, 2)).astype(np.uint64)
    right = left[::-1].copy()
    right[5, 0] ^= np.uint64(0b1111)
    assert set(near_pairs(left, right)) == {(number, 699 - number) for number in range(700)}
    right[5, 1] ^= np.uint64(0b1111111)  # eleven bits in all
    assert (694, 5) not in set(near_pairs(left, right))


def test_modes_without_gray_are_hashed(tmp_path: Path) -> None:
    image = smooth_image(1).convert("P")
    image.save(tmp_path / "p.png")
    smooth_image(1).convert("RGBA").save(tmp_path / "a.png")
    hashes = perceptual_hashes([tmp_path / "p.png", tmp_path / "a.png"], progress=False)
    assert list(near_pairs(hashes[:1], hashes[1:])) == [(0, 0)]


def test_the_survey_does_not_depend_on_masks(tmp_path: Path) -> None:
    config = make_folder_tree(tmp_path, n_train=12, n_val=3)
    with_masks = survey(open_dataset(config), config)
    without = survey(open_dataset(replace(config, masks="")), config)
    assert {*without.problems} - {*with_masks.problems} == {"no masks: results can be looked at, not scored"}


def test_three_tags_that_always_come_together_are_one_group(tmp_path: Path) -> None:
    found = plant(tmp_path, many(["cat;sofa;tv"] * 3 + ["dog"] * 3))
    assert "in training: cat = sofa = tv. Tags" in told(found, "inseparable")


def test_under_full_supervision_tags_need_not_tell_classes_apart(tmp_path: Path) -> None:
    plant(tmp_path, many(["cat;sofa"] * 12))
    config = DataConfig(root=str(tmp_path))
    problems = survey(open_dataset(config), config, full=True).problems
    assert not [text for text in problems if text.startswith(("inseparable", "everywhere", "never alone"))]
