"""Folders whose names say everything: VOC, COCO, Cityscapes, and a folder per class."""

from pathlib import PurePosixPath

from data.own.tree import SPLIT_NAMES, UNTAGGED, Found, Tree
from data.sources.coco import Instances, read_instances
from data.sources.listing import Entry
from wsss.errors import plural

_NO_CLASS = ("images", "masks", "labels", "annotations", "photos", "photographs")
_ROBOFLOW = "_annotations.coco.json"


def find_voc(tree: Tree) -> Found | str:
    """Recognise the PASCAL VOC devkit."""
    root = tree.root
    for place in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        lists = place / "ImageSets" / "Segmentation"
        names = {path.stem for path in lists.glob("*.txt")} if (place / "JPEGImages").is_dir() else set()
        train = next((name for name in ("train_aug", "trainaug", "train", "trainval") if name in names), None)
        if train:
            data = {"source": "voc", "train_split": train, "val_split": "val"}
            return Found(what="the PASCAL VOC devkit", data=data)
    return "no JPEGImages with ImageSets/Segmentation/train.txt"


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
    parts = {name: PurePosixPath(name).parts for name in tree.images}
    tops = {folders[0].lower() for folders in parts.values() if len(folders) > 1}
    depth = 1 if tops and tops <= set(SPLIT_NAMES) else 0
    entries = []
    for name, folders in parts.items():
        if len(folders) - 1 <= depth or folders[depth].lower() in _NO_CLASS:
            continue
        tag = folders[depth].strip()
        tags = () if tag.lower() in UNTAGGED else (tag,)
        entries.append(
            Entry(image=name, tags=tags, split=SPLIT_NAMES[folders[0].lower()] if depth else "train")
        )
    if not entries:
        return "no folders named by class"
    problems = ["each image has the one tag of its folder: what else it shows counts as background"]
    loose = len(tree.images) - len(entries)
    if loose:
        problems.append(f"{plural(loose, 'image')} outside of the class folders: left out")
    what = f"images in {'folders of splits and ' if depth else ''}folders named by class"
    return Found(what=what, entries=tuple(entries), problems=tuple(problems))


def used_classes(instances: Instances) -> dict[str, list[str]]:
    """The key ``classes`` without categories that no annotation has, which exports often list; empty if all have."""
    names = instances.used()
    return {"classes": names} if names and len(names) < len(instances.categories) else {}
