"""Folders whose names say everything: VOC, COCO, Cityscapes, and a folder per class."""

import contextlib
import os
from pathlib import Path, PurePosixPath

from data.own.tree import Found, Tree
from data.sources.coco import Instances, read_instances
from data.sources.listing import Entry
from data.sources.table import SPLIT_NAMES, UNTAGGED
from data.sources.voc import VOC_CLASSES, read_annotation
from wsss.errors import UserError, listed, plural

CONTAINERS = (
    "data", "dataset", "datasets", "images", "imgs", "img", "image", "jpegimages", "photos", "photographs", "pictures",
    "pics", "raw", "dcim", "all", "files", "input", "inputs",
)  # fmt: skip
"""Names of folders that say nothing about what their images show."""

_DEFECT_FREE = (
    *UNTAGGED,
    "negatives",
    "good",
    "normal",
    "ok",
    "no defect",
    "no_defect",
    "defect free",
    "defect_free",
)
_ROBOFLOW = "_annotations.coco.json"


def find_voc(tree: Tree) -> Found | str:
    """Recognise the PASCAL VOC devkit, and what is laid out like it."""
    root = tree.root
    for place in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        lists = place / "ImageSets" / "Segmentation"
        names = {path.stem for path in lists.glob("*.txt")} if (place / "JPEGImages").is_dir() else set()
        usual = ("train_aug", "trainaug", "train", "trainval", "default", *sorted(names - {"val", "test"}))
        train = next((name for name in usual if name in names), None)
        if train:
            data = {"source": "voc", "train_split": train, "val_split": "val"}
            if (root / "tags.csv").is_file():  # of the command `tags`
                data["tags"] = os.path.relpath(root / "tags.csv", place)
            return Found(what="the PASCAL VOC devkit", data={**data, **_voc_classes(place / "Annotations")})
    return "no JPEGImages with ImageSets/Segmentation/train.txt"


def _voc_classes(folder: Path) -> dict[str, list[str]]:
    """The key ``classes`` where annotations name others than VOC's."""
    named: set[str] = set()
    for path in folder.glob("*.xml"):
        with contextlib.suppress(UserError):  # which the reader will name
            named |= set(read_annotation(path))
    return {"classes": sorted(named)} if named - set(VOC_CLASSES) else {}


def find_cityscapes(tree: Tree) -> Found | str:
    """Recognise Cityscapes."""
    if not (tree.root / "leftImg8bit" / "train").is_dir():
        return "no leftImg8bit/train"
    data = {"source": "cityscapes", "train_split": "train", "val_split": "val"}
    return Found(what="Cityscapes", data=data)


def find_coco(tree: Tree) -> Found | str:
    """Recognise COCO's own layout: annotations/instances_<split>.json."""
    files = sorted((tree.root / "annotations").glob("instances_*.json"))
    splits = [path.stem.removeprefix("instances_") for path in files]
    train = [name for name in splits if name.lower().startswith("train")]
    if not train:
        return "no annotations/instances_train*.json"
    val = [name for name in splits if name == train[-1].replace("train", "val")]
    data = {"source": "coco", "train_split": train[-1], "val_split": val[0] if val else "val"}
    return Found(what="COCO instance annotations, a file per split", data=data)


def find_split_folders(tree: Tree) -> Found | str:
    """Recognise a COCO export with a folder per split, as Roboflow writes it."""
    places = sorted(tree.root.glob(f"*/{_ROBOFLOW}"))
    splits = {SPLIT_NAMES.get(path.parent.name.lower()): path.parent.name for path in places}
    if "train" not in splits:
        return f"no train/{_ROBOFLOW}"
    data: dict[str, str | list[str]] = {
        "source": "coco",
        "labels": f"{{split}}/{_ROBOFLOW}",
        "images": "{split}",
        "train_split": splits["train"],
        "val_split": splits.get("val", "val"),
        **used_classes(read_instances(tree.root / splits["train"] / _ROBOFLOW)),
    }
    return Found(what="a COCO export with a folder per split", data=data)


def find_class_folders(tree: Tree) -> Found | str:
    """Recognise images in folders named by class, possibly inside folders named by split."""
    parts = {name: PurePosixPath(name).parts[:-1] for name in tree.images}
    start = 0
    while len(tops := {p[start] if len(p) > start else "" for p in parts.values()}) == 1 and tops != {""}:
        if any(len(p) == start + 1 for p in parts.values()):
            break  # images lie in it: the only class
        start += 1
    inner = {p[start].lower() for p in parts.values() if len(p) > start + 1}
    split = bool(inner & set(SPLIT_NAMES)) or {top.lower() for top in tops} <= set(SPLIT_NAMES)
    at = start + split
    entries, loose = [], []
    for name, folders in parts.items():
        if (
            len(folders) <= at
            or (split and folders[start].lower() not in SPLIT_NAMES)
            or folders[at].lower() in CONTAINERS
        ):
            loose.append(name)
            continue
        tag = folders[at].strip()
        tags = () if tag.lower() in _DEFECT_FREE else (tag,)
        entries.append(
            Entry(image=name, tags=tags, split=SPLIT_NAMES[folders[start].lower()] if split else "train")
        )
    if not any(entry.tags for entry in entries):
        return "no folders named by class"
    problems = ["each image has the one tag of its folder: what else it shows counts as background"]
    if loose:
        problems.append(
            f"{plural(len(loose), 'image')} outside of the class folders ({listed(loose[:3], ', ')}): left out"
        )
    clean = sorted({PurePosixPath(entry.image).parts[at] for entry in entries if not entry.tags})
    notes = [f"images in {', '.join(clean)} are taken to show none of the classes"] if clean else []
    what = f"images in {'folders of splits and ' if split else ''}folders named by class"
    return Found(what=what, entries=tuple(entries), notes=tuple(notes), problems=tuple(problems))


def used_classes(instances: Instances) -> dict[str, list[str]]:
    """The key ``classes`` without categories that no annotation has, which exports often list; empty if all have."""
    names = instances.used()
    return {"classes": names} if names and len(names) < len(instances.categories) else {}
