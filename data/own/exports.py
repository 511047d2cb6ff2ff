"""Exports of labelling tools: Label Studio, CVAT, VOC annotations, one COCO file.

Formats: https://labelstud.io/guide/export (JSON and JSON-MIN), https://docs.cvat.ai/docs/other/xml_format (CVAT for
images 1.1), the VOC devkit, https://cocodataset.org/#format-data
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from data.images import read_bytes
from data.own.layouts import used_classes
from data.own.tree import SPLIT_NAMES, Found, Tree, matched
from data.sources.coco import read_instances
from data.sources.voc import parse_xml, read_annotation
from wsss.errors import UserError, listed

_START = 4096  # bytes that tell one export from another
_COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"', b'"info"')
_SHAPES = ("tag", "box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")

_Named = tuple[str, set[str], str]
"""Image, tags and split."""


def find_export(tree: Tree) -> Found | str:
    """Read the export nearest to the root.

    Raises:
        UserError: a file that is one, and damaged or of no image in the folder.
    """
    for name in tree.lists_named(".json", ".xml"):
        path = tree.root / name
        with path.open("rb") as file:
            start = file.read(_START).removeprefix(b"\xef\xbb\xbf").lstrip()
        if name.endswith(".json") and start.startswith(b"["):
            tasks = _label_studio(path)
            if tasks is not None:
                return matched(tree, name, f"the Label Studio export {name}", tasks)
        elif name.endswith(".json") and any(key in start for key in _COCO_KEYS):
            return _coco(tree, name)
        elif b"<annotations" in start:
            return matched(tree, name, f"the CVAT export {name}", list(_cvat(path)))
        elif b"<annotation" in start:
            return _voc_files(tree)
    others = f" ({listed(list(tree.lists), ', ')})" if tree.lists else ""
    return f"no export of a labelling tool that is known{others}"


# ---- Label Studio


class _Result(msgspec.Struct):
    value: dict[str, Any] = {}


class _Annotation(msgspec.Struct):
    was_cancelled: bool = False
    result: list[_Result] = []


class _Task(msgspec.Struct):
    annotations: list[_Annotation] = []


def _label_studio(path: Path) -> list[_Named] | None:
    """Images and tags of a JSON or JSON-MIN export; None where the file is neither."""
    try:
        tasks = msgspec.json.decode(read_bytes(path).removeprefix(b"\xef\xbb\xbf"), type=list[Any])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, damaged or cut off ({error}): export it again.") from error
    if not tasks or not all(isinstance(task, dict) and _task_image(task) for task in tasks):
        return None
    return [
        (_task_image(task), tags, "train") for task in tasks if (tags := _task_tags(task, path)) is not None
    ]


def _task_image(task: Mapping[str, Any]) -> str:
    """The image of a task: the first text of its data that ends as an image file does."""
    data = task.get("data", task)
    values = [data["image"]] if isinstance(data, dict) and "image" in data else list(data.values())
    texts = [value for value in values if isinstance(value, str) and "." in PurePosixPath(value).name]
    return texts[0] if texts else ""


def _task_tags(task: Mapping[str, Any], path: Path) -> set[str] | None:
    """Every class that a task's annotations name; None for a task that nobody finished."""
    if "data" not in task:
        return _minimal_tags(task)
    try:
        annotations = msgspec.convert(task, _Task).annotations
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path}: task {task.get('id')!r} is not of Label Studio's form ({error}). Expected "
            "annotations[].result[].value.choices: export the project as JSON."
        ) from error
    done = [annotation for annotation in annotations if not annotation.was_cancelled]
    tags = {tag for annotation in done for result in annotation.result for tag in _names(result.value)}
    return tags if done else None


def _names(value: Mapping[str, Any]) -> Iterator[str]:
    """The class names in a result: choices, and labels of regions (rectanglelabels, brushlabels, ...)."""
    for key, names in value.items():
        if (key == "choices" or key.endswith("labels")) and isinstance(names, list):
            yield from (str(name).strip() for name in names)


def _minimal_tags(task: Mapping[str, Any]) -> set[str]:
    """JSON-MIN: a choice is a text, several are {"choices": [...]}; regions are a list of objects."""
    tags: set[str] = set()
    for key, value in task.items():
        if isinstance(value, str):
            tags |= {value.strip()} if key in ("choice", "choices", "label", "tag", "class") else set()
        for item in value if isinstance(value, list) else [value]:
            tags.update(_names(item) if isinstance(item, dict) else ())
    return tags


# ---- CVAT, VOC, COCO


def _cvat(path: Path) -> Iterator[_Named]:
    """Images with the labels of their tags and shapes; the subset is the split."""
    try:
        document = parse_xml(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path}: not a readable CVAT export ({error}): export it again.") from error
    if document.find("track") is not None:
        raise UserError(
            f"{path}: a CVAT for video export. Expected single images: export as 'CVAT for images 1.1'."
        )
    for number, image in enumerate(document.iter("image")):
        name = image.get("name")
        labels = [shape.get("label") for shape in image if shape.tag in _SHAPES]
        if not name or not all(labels):
            raise UserError(
                f"{path}: image {image.get('id', number)} lacks a name, or one of its tags a label. Expected "
                "'CVAT for images 1.1': export it again."
            )
        subset = (image.get("subset") or "train").lower()
        yield name, {label for label in labels if label}, SPLIT_NAMES.get(subset, subset)


def _voc_files(tree: Tree) -> Found:
    """VOC annotations of somebody's own, beside their images or in a folder of their own."""
    named = []
    for name in tree.lists_named(".xml"):
        try:
            tags = set(read_annotation(tree.root / name))
        except UserError as error:
            raise UserError(f"{error}.") from error
        split = next((SPLIT_NAMES[part] for part in name.lower().split("/") if part in SPLIT_NAMES), "train")
        named.append((name.removesuffix(".xml").replace("Annotations/", ""), tags, split))
    what = f"({len(named)} files)"
    return matched(tree, what, f"VOC annotations {what}", named)


def _coco(tree: Tree, name: str) -> Found:
    """One COCO file: read as it is where its paths are those of the images, else as a list of tags."""
    instances = read_instances(tree.root / name)
    named = [
        (image.file_name, {instances.categories[number] for number in image.categories}, "train")
        for image in instances.images
    ]
    found = matched(tree, name, f"the COCO file {name}", named)
    known = set(tree.images)
    for folder in ("", "images/", f"{PurePosixPath(name).parent}/"):
        if all(folder + image.file_name in known for image in instances.images):
            data = {"source": "coco", "labels": name, "images": folder.rstrip("/") or "."}
            return replace(found, data={**data, **used_classes(instances)}, listed=True)
    unused = "its regions are not used: its paths are not those of the files"
    return replace(found, problems=(*found.problems, unused))
