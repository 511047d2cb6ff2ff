"""The embedded sample: what is on disc agrees with itself, and the script that composed it does its part."""

import csv
import importlib.util
import sys
import tomllib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SIZES = {(256, 192), (192, 256)}


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sample_compose", SAMPLE / "compose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# The script lies beside the data, outside every package, hence no plain import.
script: Any = load_script()


@cache
def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@cache
def class_names() -> list[str]:
    return (SAMPLE / "classes.txt").read_text(encoding="utf-8").splitlines()


@cache
def read_mask(image: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(SAMPLE / "masks" / f"{Path(image).stem}.png"))


# --- the files on disc -----------------------------------------------------------------------------------


def test_counts_and_names() -> None:
    splits = Counter(row["split"] for row in rows("labels.csv"))
    assert splits == {"train": 240, "val": 60}
    images = [row["image"] for row in rows("labels.csv")]
    assert len(set(images)) == len(images)
    assert sorted(images) == sorted(path.name for path in (SAMPLE / "images").iterdir())
    masks = sorted(path.stem for path in (SAMPLE / "masks").iterdir())
    assert sorted(Path(image).stem for image in images) == masks
    assert all(row["image"].startswith(f"{row['split']}_") for row in rows("labels.csv"))


def test_sample_stays_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 12_000_000


def test_image_and_mask_agree_in_size() -> None:
    for row in rows("labels.csv"):
        with Image.open(SAMPLE / "images" / row["image"]) as image:
            assert image.mode == "RGB"
            assert image.size in SIZES
            assert image.size[::-1] == read_mask(row["image"]).shape


def test_masks_are_palette_files_in_voc_colours() -> None:
    for row in rows("labels.csv"):
        with Image.open(SAMPLE / "masks" / f"{Path(row['image']).stem}.png") as mask:
            assert mask.mode == "P"
            palette = mask.getpalette()
        assert palette is not None
        assert palette[: 3 * (len(class_names()) + 1)] == script.voc_palette()[: 3 * (len(class_names()) + 1)]


def test_tags_are_the_classes_in_the_mask() -> None:
    for row in rows("labels.csv"):
        values = np.unique(read_mask(row["image"]))
        assert values.max() <= len(class_names())
        assert row["tags"].split(";") == [class_names()[value - 1] for value in values if value]


def test_tagged_classes_are_large_enough_to_see() -> None:
    for row in rows("labels.csv"):
        mask = read_mask(row["image"])
        for value in np.unique(mask):
            assert np.count_nonzero(mask == value) >= 0.003 * mask.size, row["image"]


def test_no_source_in_both_splits() -> None:
    for column in ("cutouts", "background"):
        used: dict[str, set[str]] = defaultdict(set)
        for row in rows("sources.csv"):
            used[row["split"]].update(row[column].split(";"))
        assert used["train"]
        assert used["val"]
        assert not used["train"] & used["val"]


def test_sources_match_the_selection_and_the_tags() -> None:
    selection = script.read_selection(SAMPLE / "selection.toml")
    assert selection.classes == class_names()
    tags = {row["image"]: row["tags"].split(";") for row in rows("labels.csv")}
    assert [row["image"] for row in rows("sources.csv")] == list(tags)
    for row in rows("sources.csv"):
        known = {cutout.file: cutout.class_index for cutout in selection.cutouts[row["split"]]}
        assert row["background"] in {background.file for background in selection.backgrounds[row["split"]]}
        indices = sorted({known[file] for file in row["cutouts"].split(";")})
        assert [class_names()[index - 1] for index in indices] == tags[row["image"]]


def test_classes_are_balanced_and_varied() -> None:
    for split, fewest in (("train", 35), ("val", 10)):
        labels = [row for row in rows("labels.csv") if row["split"] == split]
        counts = Counter(tag for row in labels for tag in row["tags"].split(";"))
        assert set(counts) == set(class_names())
        assert min(counts.values()) >= fewest
        assert max(counts.values()) <= 1.3 * min(counts.values())


def test_background_does_not_give_the_class_away() -> None:
    tags = {row["image"]: row["tags"].split(";") for row in rows("labels.csv")}
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows("sources.csv"):
        seen[row["background"]].update(tags[row["image"]])
    for background, counts in seen.items():
        assert max(counts.values()) <= 0.4 * counts.total(), background


def test_selection_takes_no_mirrored_copies_and_no_file_twice() -> None:
    table = tomllib.loads((SAMPLE / "selection.toml").read_text(encoding="utf-8"))
    selection = script.read_selection(SAMPLE / "selection.toml")
    files = [cutout.file for split in ("train", "val") for cutout in selection.cutouts[split]]
    assert len(set(files)) == len(files)
    assert not [file for file in files if "mirror" in file or "flip" in file or "cartoon" in file]
    for entry in table["class"]:
        assert {*entry.get("trim", []), *entry.get("lettered", [])} <= {*entry["train"], *entry["val"]}


def test_licence_names_every_background() -> None:
    licence = (SAMPLE / "LICENSE").read_text(encoding="utf-8")
    for row in rows("sources.csv"):
        assert row["background"] in licence
    assert "Version 2, June 1991" in (SAMPLE / "GPL-2.txt").read_text(encoding="utf-8")


# --- the script ------------------------------------------------------------------------------------------


def disc(size: int, colour: tuple[int, int, int] = (200, 40, 30)) -> Image.Image:
    """Draw a filled circle with a soft edge, RGBA."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    alpha = np.clip(size / 2 - np.hypot(x, y), 0, 1)
    pixels = np.dstack([np.full((size, size, 3), colour), 255 * alpha]).astype(np.uint8)
    return Image.fromarray(pixels)


def square(size: int, alpha: int = 255) -> Image.Image:
    return Image.new("RGBA", (size, size), (30, 60, 220, alpha))


def texture(width: int = 300, height: int = 240) -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(60, 200, (height, width), dtype=np.uint8)).convert("RGB")


def cutout(class_index: int = 1, grounded: bool = False) -> Any:
    return script.Cutout(f"object{class_index}.png", class_index, 10.0, grounded, trim=False, mirror=True)


def composed(seed: int) -> Any:
    scene = script.Scene(
        "train_000", "train", (128, 96), script.Background("x.jpg"), [cutout(1), cutout(2, grounded=True)]
    )
    return script.compose(np.random.default_rng(seed), texture(), [disc(40), square(30)], scene)


def test_voc_palette() -> None:
    palette = np.array(script.voc_palette()).reshape(256, 3)
    assert palette[[0, 1, 2, 3, 8, 255]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [64, 0, 0],
        [224, 224, 192],
    ]


def test_mask_is_where_alpha_reaches_one_half() -> None:
    turned = script.transform_cutout(disc(40), 1.3, 17.0, True)
    layer = script.lay(turned, (10, 5), (128, 96), 4)
    mask = script.merge_masks([layer], (128, 96))
    expected = np.zeros((96, 128), np.uint8)
    alpha = np.asarray(turned.getchannel("A"))
    expected[5 : 5 + alpha.shape[0], 10 : 10 + alpha.shape[1]] = np.where(alpha >= 128, 4, 0)
    assert np.array_equal(mask, expected)


def test_faint_object_is_no_object() -> None:
    layer = script.lay(square(20, alpha=127), (0, 0), (64, 64), 1)
    assert not script.merge_masks([layer], (64, 64)).any()


def test_upper_object_wins_and_border_cuts() -> None:
    lower = script.lay(square(20), (0, 0), (64, 48), 1)
    upper = script.lay(square(20), (10, -5), (64, 48), 2)
    mask = script.merge_masks([lower, upper], (64, 48))
    assert mask.shape == (48, 64)
    assert np.count_nonzero(mask == 2) == 20 * 15
    assert np.count_nonzero(mask == 1) == 20 * 20 - 10 * 15
    assert script.visible_areas([lower, upper]) == [20 * 20 - 10 * 15, 20 * 15]


@pytest.mark.parametrize(("corner", "good"), [((40, 40), True), ((0, 0), False), ((90, 40), False)])
def test_hidden_and_cut_off_objects_are_refused(corner: tuple[int, int], good: bool) -> None:
    size = (96, 96)
    lower = script.Placed(script.lay(square(20), (2, 2), size, 1), 400, cutout(1))
    upper = script.Placed(script.lay(square(24), corner, size, 2), 576, cutout(2))
    assert script.acceptable([lower, upper], 96 * 96) is good


def test_object_without_room_is_left_out_of_mask_and_sources() -> None:
    scene = np.asarray(texture(64, 48), dtype=np.float32)
    speck = Image.new("RGBA", (2, 1), (255, 0, 0, 255))  # 0.3 % of the image even fully enlarged
    placed = script.place(np.random.default_rng(1), [disc(30), speck], [cutout(1), cutout(2)], scene)
    assert [item.cutout.class_index for item in placed] == [1]


def test_composition_holds_what_its_mask_says() -> None:
    result = composed(5)
    assert result.image.shape == (96, 128, 3)
    assert result.mask.shape == (96, 128)
    assert set(np.unique(result.mask)) == {0, *(item.class_index for item in result.cutouts)}
    # Red disc and blue square keep their colour, so the object really is where the mask puts it.
    means = {index: result.image[result.mask == index].mean(axis=0) for index in (1, 2)}
    assert means[1][0] > means[1][2] + 60
    assert means[2][2] > means[2][0] + 60


def test_composition_follows_the_seed() -> None:
    first, again, other = composed(5), composed(5), composed(6)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.mask, other.mask)


def test_soft_edge_lies_between_object_and_scene() -> None:
    scene = np.full((64, 64, 3), 100, np.float32)
    layer = script.lay(disc(40, (150, 150, 150)), (12, 12), (64, 64), 1)
    rng = np.random.default_rng(0)
    drawn = [script.blend(rng, scene, layer) for _ in range(20)]
    shadowless = [picture for picture in drawn if abs(picture[54, 32].mean() - 100) < 0.01]
    assert shadowless
    for picture in shadowless:
        core = picture[28:36, 28:36]
        rim = picture[(layer.alpha > 0) & (layer.alpha < 1)]
        assert rim.min() >= min(100, core.min()) - 2
        assert rim.max() <= max(100, core.max()) + 2


def test_shadow_does_not_wrap_round_the_border() -> None:
    scene = np.full((96, 96, 3), 200, np.float32)
    layer = script.lay(square(30), (30, 66), (96, 96), 1)
    for seed in range(10):
        shaded = script.cast_shadow(np.random.default_rng(seed), scene, layer)
        assert shaded[:20].min() > 199
        assert shaded.min() < 190


def test_dark_and_plain_crops_are_passed_over() -> None:
    photograph = Image.new("RGB", (1200, 300), (150, 150, 150))
    photograph.paste((0, 0, 0), (0, 0, 450, 300))
    photograph.paste(texture(300, 300), (900, 0))
    for seed in range(5):
        window = script.crop_background(np.random.default_rng(seed), photograph, (128, 96))
        assert window.shape == (96, 128, 3)
        assert window.mean() >= 30
        assert window.mean(axis=2).std() >= 12


def test_trim_takes_the_outline_in(tmp_path: Path) -> None:
    padded = Image.new("RGBA", (30, 30))
    padded.paste(square(20), (10, 4))
    padded.save(tmp_path / "square.png")
    assert script.read_cutout(tmp_path / "square.png", trim=False).size == (20, 20)
    assert script.read_cutout(tmp_path / "square.png", trim=True).size == (18, 18)


def test_plan_deals_everything_out_evenly() -> None:
    selection = script.read_selection(SAMPLE / "selection.toml")
    plan = script.plan_split(np.random.default_rng(1), selection, "train")
    assert len(plan) == selection.counts["train"]
    backgrounds = Counter(scene.background.file for scene in plan)
    assert max(backgrounds.values()) - min(backgrounds.values()) <= 1
    cutouts = Counter(item for scene in plan for item in scene.cutouts)
    assert set(cutouts) == set(selection.cutouts["train"])
    for index in range(1, len(selection.classes) + 1):
        uses = [count for item, count in cutouts.items() if item.class_index == index]
        assert max(uses) - min(uses) <= 1
