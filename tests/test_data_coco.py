"""COCO: listing, tags, and masks drawn from the annotations."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from data import open_dataset
from data.survey import survey
from tests.coco_trees import CATEGORIES, annotation, image_entry, make_coco_tree, write_instances
from tests.trees import refused, write_jpeg, write_png
from wsss.config import DataConfig
from wsss.errors import UserError

SIZE = (20, 30)


def one_image(root: Path, annotations: list[Any], **changes: Any) -> DataConfig:
    """A training split of one image with the given annotations, and a second with every category."""
    write_jpeg(root / "train2017" / "a.jpg", np.zeros((*SIZE, 3), np.uint8))
    write_jpeg(root / "train2017" / "b.jpg", np.zeros((*SIZE, 3), np.uint8))
    box = [[0, 0, 2, 0, 2, 2, 0, 2]]
    rest = [annotation(900 + category, 2, category, box) for category in CATEGORIES]
    images = [image_entry(1, "a.jpg", SIZE), image_entry(2, "b.jpg", SIZE)]
    write_instances(
        root / "annotations" / "instances_train2017.json", images, rest[:1] + annotations + rest[1:]
    )
    settings = {
        "source": "coco",
        "root": str(root),
        "train_split": "train2017",
        "val_split": "val2017",
        **changes,
    }
    return DataConfig(**settings)


def drawn(config: DataConfig) -> np.ndarray[Any, np.dtype[np.uint8]]:
    sample = open_dataset(config).samples[0]
    assert sample.mask is not None
    return sample.mask.read()


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def test_both_splits(tmp_path: Path) -> None:
    data = open_dataset(make_coco_tree(tmp_path))
    assert data.classes == ("person", "car", "dog")
    assert [(s.id, s.tags, s.split) for s in data.samples[:2]] == [
        ("train2017/000000000009", (0, 1), "train2017"),
        ("train2017/000000000010", (1,), "train2017"),
    ]
    assert (len(data), len(data.split("val2017")), data.notes) == (9, 3, ())
    for sample in data.samples:
        assert sample.mask is not None
        labels = set(np.unique(sample.mask.read()).tolist())
        assert labels == {0, *(tag + 1 for tag in sample.tags)}
        assert str(sample.mask).endswith(f".json image {int(sample.id[-12:])}")


def test_a_mask_is_that_of_the_reference(tmp_path: Path) -> None:
    polygons = [[3.2, 2.7, 17.9, 4.1, 12.5, 16.3, 5.5, 12.25], [20.5, 3.5, 28.75, 9.25, 22.1, 14.6]]
    mask = drawn(one_image(tmp_path, [annotation(5, 1, 18, polygons)]))
    merged = reference.merge(reference.frPyObjects(polygons, *SIZE))
    np.testing.assert_array_equal(mask, reference.decode(merged) * 3)


def test_a_rectangle_covers_its_pixels_and_what_lies_outside_is_cut_off(tmp_path: Path) -> None:
    wanted = np.zeros(SIZE, np.uint8)
    wanted[2:5, 1:4] = 1
    shapes = [annotation(1, 1, 1, [[1, 2, 4, 2, 4, 5, 1, 5], [70, 2, 90, 2, 90, 50]])]
    np.testing.assert_array_equal(drawn(one_image(tmp_path, shapes)), wanted)


def test_the_smaller_instance_is_on_top_whatever_the_order(tmp_path: Path) -> None:
    small, large = annotation(1, 1, 1, box(5, 5, 9, 9)), annotation(2, 1, 3, box(3, 3, 15, 15))
    for place, order in enumerate(([small, large], [large, small])):
        mask = drawn(one_image(tmp_path / str(place), order))
        assert (mask == 1).sum() == 16
        assert (mask == 2).sum() == 144 - 16


def test_of_two_of_one_size_the_later_is_on_top(tmp_path: Path) -> None:
    first, second = annotation(1, 1, 1, box(5, 5, 9, 9)), annotation(2, 1, 3, box(7, 5, 11, 9))
    mask = drawn(one_image(tmp_path, [first, second]))
    assert ((mask == 1).sum(), (mask == 2).sum()) == (8, 16)


def test_crowds_are_ignored_but_for_the_instances_on_them(tmp_path: Path) -> None:
    counts = [0, 10 * SIZE[0], 20 * SIZE[0]]  # the first ten columns
    crowd = annotation(1, 1, 1, {"counts": counts, "size": list(SIZE)}, crowd=1)
    config = one_image(tmp_path, [crowd, annotation(2, 1, 3, box(8, 0, 12, 20))])
    mask = drawn(config)
    assert (mask[:, :8] == 255).all()
    assert (mask[:, 8:12] == 2).all()
    assert (mask[:, 12:] == 0).all()
    assert open_dataset(config).samples[0].tags == (0, 1)


def test_compressed_run_lengths(tmp_path: Path) -> None:
    region = np.zeros(SIZE, np.uint8)
    region[4:9, 3:20] = 1
    encoded = reference.encode(np.asfortranarray(region))
    encoded["counts"] = encoded["counts"].decode()
    np.testing.assert_array_equal(drawn(one_image(tmp_path, [annotation(1, 1, 1, encoded)])), region)


def test_an_image_without_annotations_is_all_background(tmp_path: Path) -> None:
    config = one_image(tmp_path, [])
    data = open_dataset(config)
    assert data.samples[0].tags == ()
    assert not drawn(config).any()
    assert data.notes == (
        "no validation images: no image has the split 'val2017'",
        "1 image has no tags: treated as showing background only",
    )


def test_categories_left_out_are_ignored(tmp_path: Path) -> None:
    config = one_image(
        tmp_path,
        [annotation(1, 1, 1, box(0, 0, 4, 4)), annotation(2, 1, 18, box(5, 0, 9, 4))],
        classes=("dog", "car"),
    )
    data = open_dataset(config)
    assert data.samples[0].tags == (0,)
    assert "data.classes leaves out person: no tags, and their pixels are ignored" in data.notes
    mask = drawn(config)
    assert ((mask == 255).sum(), (mask == 1).sum()) == (16, 16)


def test_annotations_without_regions_give_tags_alone(tmp_path: Path) -> None:
    config = one_image(tmp_path, [annotation(1, 1, 1, []), annotation(2, 1, 3, box(1, 1, 4, 4))])
    data = open_dataset(config)
    assert data.samples[0].tags == (0, 1)
    assert data.samples[0].mask is None
    assert data.samples[1].mask is not None


def test_points_and_lines_have_no_pixels_and_that_is_said(tmp_path: Path) -> None:
    config = one_image(tmp_path, [annotation(1, 1, 1, [[1, 2, 3, 4]]), annotation(2, 1, 3, box(1, 1, 4, 4))])
    assert set(np.unique(drawn(config)).tolist()) == {0, 2}
    problems = survey(open_dataset(config), config).problems
    assert "1 of 2 masks show other classes" in " ".join(problems)


def test_samples_are_small_and_travel(tmp_path: Path) -> None:
    sample = open_dataset(make_coco_tree(tmp_path)).samples[0]
    packed = pickle.dumps(sample)
    assert len(packed) < 1500
    again = pickle.loads(packed)
    assert again == sample
    np.testing.assert_array_equal(again.mask.read(), sample.mask.read())  # type: ignore[union-attr]


def test_the_digest_follows_masks_and_only_on_request(tmp_path: Path) -> None:
    def digests(left: int, **settings: Any) -> tuple[str, str]:
        data = open_dataset(one_image(tmp_path, [annotation(1, 1, 1, box(left, 0, 4, 4))], **settings))
        return data.digest(masks=False), data.digest(masks=True)

    before, moved = digests(0), digests(1)
    assert before[0] == moved[0]
    assert before[1] != moved[1]
    assert digests(0) == before
    assert digests(0, classes=("car", "person", "dog"))[1] != before[1]


def test_index_pngs_instead_of_annotations(tmp_path: Path) -> None:
    config = one_image(tmp_path, [annotation(1, 1, 1, box(0, 0, 4, 4))], masks="stuff")
    refused(config, str(tmp_path / "stuff"), "data.masks")
    write_png(tmp_path / "stuff" / "train2017" / "a.png", np.full(SIZE, 3, np.uint8))
    assert (drawn(config) == 3).all()
    assert open_dataset(one_image(tmp_path, [], masks="")).samples[0].mask is None


def test_layout_of_an_own_export(tmp_path: Path) -> None:
    config = one_image(tmp_path, [])
    (tmp_path / "train2017").rename(tmp_path / "train")
    shutil.move(
        tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train" / "_annotations.coco.json"
    )
    own = DataConfig(
        source="coco",
        root=config.root,
        labels="{split}/_annotations.coco.json",
        images="{split}",
        val_split="valid",
    )
    assert [sample.id for sample in open_dataset(own).samples] == ["train/a", "train/b"]


# ---- trees that are wrong or half unpacked


def test_missing_files_are_named(tmp_path: Path) -> None:
    config = make_coco_tree(tmp_path)
    shutil.move(tmp_path / "train2017", tmp_path / "x")
    refused(
        config,
        "the images of the split 'train2017' are missing",
        "images/train2017",
        "unpack train2017.zip",
    )
    (tmp_path / "train2017").mkdir()
    refused(config, "6 image(s) cannot be used", "instances_train2017.json image 9", "does not exist")
    (tmp_path / "annotations" / "instances_train2017.json").unlink()
    refused(
        config,
        str(tmp_path / "annotations" / "instances_train2017.json"),
        "no such file",
        "annotations_trainval",
    )


def edit(root: Path, change: Any) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first(key: str, **values: Any) -> Any:
    """A change of the first entry of an array."""
    return lambda content: content[key][0].update(values)


def segmentation(value: Any) -> Any:
    return first("annotations", segmentation=value)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda c: c["annotations"][0].pop("category_id"), ("`category_id` - at `$.annotations[0]`",)),
        (first("annotations", image_id="9"), ("Expected `int`, got `str` - at `$.annotations[0].image_id`",)),
        (first("annotations", image_id=77), ("annotations[0] names image 77, which is not listed",)),
        (first("annotations", category_id=2), ("annotations[0] names category 2, which is not listed",)),
        (lambda c: c["categories"].pop(), ("names category 18, which is not listed",)),
        (lambda c: c["images"].append(c["images"][0]), ("images: two have the id 9",)),
        (first("images", height=0), ("`int` >= 1 - at `$.images[0].height`",)),
        (first("images", height=10**9), ("at `$.images[0].height`",)),
        (lambda c: c["images"].insert(0, 5), ("at `$.images[0]`",)),
        (lambda c: c.pop("categories"), ("missing required field `categories`", "name another file")),
        (first("images", file_name="../val2017/x.jpg"), ("is no plain path",)),
        (first("images", file_name="a\0.jpg"), ("is no plain path",)),
        (first("categories", name="kite"), ("its categories are not those of",)),
        (first("images", width=49), ("image 9 is 49x36", "its image 48x36")),
        (segmentation([[1, 2, 3, 4, 5, 6, 7]]), ("a polygon of 7 numbers",)),
        (segmentation([[1, 2, 3, 4, 5, 1e9]]), ("far outside",)),
        (segmentation([[1, 2, 3, 4, 5, float("nan")]]), ("not JSON", "byte")),
        (segmentation([["a"] * 6]), ("cannot be used",)),
        (segmentation("polygon"), ("cannot be used",)),
        (segmentation({"counts": [10**30], "size": [36, 48]}), ("cannot be used",)),
        (segmentation({"counts": [1], "size": [36, 48]}), ("sum to 1, expected 1728",)),
        (segmentation({"counts": [-1, 1729], "size": [36, 48]}), ("`int` >= 0",)),
        (segmentation({"counts": [], "size": [48, 36]}), ("size [48, 36], expected [36, 48]",)),
        (segmentation({"counts": "!", "size": [36, 48]}), ("cannot be used",)),
        (segmentation({"counts": "52203", "size": [36, 48]}), ("are not those of 48x36 pixels",)),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, change: Any, parts: tuple[str, ...]) -> None:
    config = make_coco_tree(tmp_path)
    edit(tmp_path, change)
    refused(config, *parts)


def test_a_truncated_download(tmp_path: Path) -> None:
    config = make_coco_tree(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    path.write_bytes(path.read_bytes()[:1500])
    refused(config, f"{path}: not JSON, damaged or cut off")


def test_unknown_classes_are_refused(tmp_path: Path) -> None:
    make_coco_tree(tmp_path)
    settings = {"source": "coco", "root": str(tmp_path), "train_split": "train2017", "classes": ("cat",)}
    refused(DataConfig(**settings), "'cat' not among the categories", "person, car, dog")  # type: ignore[arg-type]


def test_a_file_that_changes_under_a_sample_is_noticed(tmp_path: Path) -> None:
    sample = open_dataset(make_coco_tree(tmp_path)).samples[0]
    edit(tmp_path, lambda content: content["annotations"].reverse())
    assert sample.mask is not None
    with pytest.raises(UserError, match="changed while it was in use"):
        sample.mask.read()


def test_what_the_annotations_said_is_remembered_until_they_change(tmp_path: Path) -> None:
    config = make_coco_tree(tmp_path / "d")
    place = tmp_path / "d" / "annotations" / "instances_train2017.json"
    cache = tmp_path / "files-x.json"
    before = open_dataset(config, cache=cache)
    stamp, content = place.stat().st_mtime_ns, place.read_bytes()
    place.write_bytes(b" " * len(content))  # the same length and time: not read again
    os.utime(place, ns=(stamp, stamp))
    assert open_dataset(config, cache=cache) == before
    place.write_bytes(content)
    edit(tmp_path / "d", lambda content: content["annotations"].pop())
    assert open_dataset(config, cache=cache) != before
    for kept in tmp_path.glob("files-x-*.listing"):
        kept.write_bytes(kept.read_bytes()[:-100])
    assert open_dataset(config, cache=cache) == open_dataset(config)
