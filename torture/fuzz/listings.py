"""Lists of photographs and tags: the layouts that are read, and folders as somebody collected them."""

from collections.abc import Callable
from pathlib import Path

from data import open_dataset
from data.own import inspect_folder
from tests.coco_trees import make_coco_tree
from tests.trees import make_folder_tree, make_voc_tree
from wsss.config import DataConfig, from_tree, load_config, to_toml

OWN_CSV = b"file;label;set\ntrain_000.jpg;cat|dog;train\ntrain_001.jpg;dog;train\nval_000.jpg;cat;val\n"
CVAT = b"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="train_000.jpg" subset="train" width="48" height="36"><tag label="cat"/></image>
<image id="1" name="train_001.jpg" width="48" height="36"><box label="dog" xtl="1" ytl="2" xbr="9" ybr="9"/></image>
</annotations>
"""
LABEL_STUDIO = b"""[{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-train_000.jpg"}, "annotations": [{"id": 5,
"was_cancelled": false, "result": [{"type": "choices", "value": {"choices": ["cat", "dog"]}}]}]},
{"id": 2, "data": {"image": "/data/local-files/?d=images/train_001.jpg"}, "annotations": [{"id": 6, "result": [
{"type": "rectanglelabels", "value": {"x": 1, "y": 2, "rectanglelabels": ["dog"]}}]}]}]
"""
LABEL_STUDIO_MINIMAL = b"""[{"image": "train_000.jpg", "id": 1, "choice": "cat"},
{"image": "train_001.jpg", "id": 2, "choice": {"choices": ["cat", "dog"]}, "label": [{"rectanglelabels": ["dog"]}]}]
"""


def folder_tree(folder: Path) -> Path:
    """A data set of this program; returns its list."""
    make_folder_tree(folder, n_train=3, n_val=1, size=(8, 8))
    return folder / "labels.csv"


def read_folder(folder: Path) -> object:
    """As every command opens it."""
    return open_dataset(DataConfig(source="folder", root=str(folder)))


def own_folder(folder: Path, name: str, content: bytes) -> Path:
    """Photographs and a list in a form of its own; returns the list."""
    make_folder_tree(folder / "tree", n_train=2, n_val=1, size=(8, 8), masks=False)
    (folder / "tree" / "images").rename(folder / "photos")
    for rest in ("labels.csv", "classes.txt"):
        (folder / "tree" / rest).unlink()
    (folder / name).write_bytes(content)
    return folder / name


def look(folder: Path) -> object:
    """As `init` looks at a folder."""
    return inspect_folder(folder)


def voc_tree(folder: Path) -> tuple[Path, Callable[[], object]]:
    """A devkit; returns one of its annotations and what opens all."""
    data = make_voc_tree(folder, n_train=2, n_val=1, size=(8, 8))
    return next((folder / "Annotations").iterdir()), lambda: open_dataset(data)


def coco_tree(folder: Path) -> tuple[Path, Callable[[], object]]:
    """COCO's layout; returns the training annotations, and what opens all and draws every mask."""
    data = make_coco_tree(folder)

    def attempt() -> object:
        return [sample.mask.read() for sample in open_dataset(data).samples if sample.mask]

    return folder / "annotations" / f"instances_{data.train_split}.json", attempt


def configuration(file: Path) -> tuple[list[bytes], Callable[[], object]]:
    """A TOML file with every key, and what reads it and writes it again."""
    plain = to_toml(from_tree({"data": {"root": "x"}}, origin="torture"))
    presets = [path.read_bytes() for path in sorted(Path("configs").glob("*.toml"))]
    return [plain.encode(), *presets], lambda: to_toml(load_config(file), comments=True)
