"""Folders whose names say everything: VOC, COCO, Cityscapes, and a folder per class."""

from pathlib import Path, PurePosixPath

from data.own.found import SPLIT_NAMES, Found, Tagged
from data.own.tree import Tree
from data.sources.coco import Instances, read_instances

_UNTAGGED = ("background", "negative", "none")
_NO_CLASS = ("images", "masks", "labels", "annotations", "photos", "photographs")
_ROBOFLOW = "_annotations.coco.json"


def find_layout(tree: Tree) -> Found | None:
    """Recognise a published layout that is read as it is."""
    return _voc(tree.root) or _cityscapes(tree.root) or _coco(tree.root) or _roboflow(tree.root)


def find_class_folders(tree: Tree) -> Found | None:
    """Recognise photographs in folders named by class, possibly inside folders named by split."""
    tops = {folders[0] for folders in tree.folders(1) if folders}
    depth = 1 if tops and all(name.lower() in SPLIT_NAMES for name in tops) else 0
    rows = [row for name in tree.images if (row := _row(name, depth))]
    if not rows:
        return None
    loose = len(tree.images) - len(rows)
    problems = ["each photograph has the one tag of its folder: what else it shows counts as background"]
    if loose:
        problems.append(f"{loose} photographs outside of the class folders: left out")
    return Found(
        what=f"photographs in {'folders of splits and ' if depth else ''}folders named by class",
        rows=tuple(rows),
        problems=tuple(problems),
    )


def _row(name: str, depth: int) -> Tagged | None:
    folders = PurePosixPath(name).parts[:-1]
    if len(folders) <= depth or folders[depth].lower() in _NO_CLASS:
        return None
    tag = folders[depth].strip()
    return Tagged(
        image=name,
        tags=() if tag.lower() in _UNTAGGED else (tag,),
        split=SPLIT_NAMES[folders[0].lower()] if depth else "train",
    )


def _voc(root: Path) -> Found | None:
    for place in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        lists = place / "ImageSets" / "Segmentation"
        names = {path.stem for path in lists.glob("*.txt")} if (place / "JPEGImages").is_dir() else set()
        train = next((name for name in ("train_aug", "trainaug", "train", "trainval") if name in names), None)
        if train:
            return Found(
                what="the PASCAL VOC devkit", data={"source": "voc", "train_split": train, "val_split": "val"}
            )
    return None


def _cityscapes(root: Path) -> Found | None:
    if not (root / "leftImg8bit" / "train").is_dir():
        return None
    return Found(what="Cityscapes", data={"source": "cityscapes", "train_split": "train", "val_split": "val"})


def _coco(root: Path) -> Found | None:
    files = sorted((root / "annotations").glob("instances_*.json"))
    splits = [path.stem.removeprefix("instances_") for path in files]
    train = [name for name in splits if name.lower().startswith("train")]
    if not train:
        return None
    val = [name for name in splits if name == train[-1].replace("train", "val")]
    return Found(
        what="COCO instance annotations, a file per split",
        data={"source": "coco", "train_split": train[-1], "val_split": val[0] if val else "val"},
    )


def _roboflow(root: Path) -> Found | None:
    splits = {
        SPLIT_NAMES.get(path.parent.name.lower()): path.parent.name for path in root.glob(f"*/{_ROBOFLOW}")
    }
    if "train" not in splits:
        return None
    return Found(
        what="a COCO export with a folder per split",
        data={
            "source": "coco",
            "labels": f"{{split}}/{_ROBOFLOW}",
            "images": "{split}",
            "train_split": splits["train"],
            "val_split": splits.get("val", "val"),
            **used_classes(read_instances(root / splits["train"] / _ROBOFLOW)),
        },
    )


def used_classes(instances: Instances) -> dict[str, list[str]]:
    """The key ``classes`` without categories that no annotation has, which exports often list; empty if all have."""
    used = set(instances.table[:, 1].tolist())
    names = [name for number, name in instances.categories.items() if number in used]
    return {"classes": names} if names and len(names) < len(instances.categories) else {}
