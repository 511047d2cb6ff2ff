"""Exports of labelling tools: Label Studio, CVAT, VOC annotations, one COCO file.

Formats: https://labelstud.io/guide/export (JSON and JSON-MIN), https://docs.cvat.ai/docs/other/xml_format (CVAT for
images 1.1), the VOC devkit, https://cocodataset.org/#format-data
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from data.images import read_bytes
from data.own.found import SPLIT_NAMES, Found, Tagged
from data.own.layouts import used_classes
from data.own.tree import Matcher, Tree
from data.plain_xml import parse_plain_xml
from data.sources.coco import read_instances
from data.sources.voc import read_annotation
from wsss.errors import UserError

_START = 4096  # bytes that tell one export from another
_SHAPES = ("tag", "box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")


def find_export(tree: Tree) -> Found | None:
    """Read the export nearest to the root; None where no file is one.

    Raises:
        UserError: a file that is one, and damaged or of no photograph in the folder.
    """
    for name in tree.lists_named(".json", ".xml"):
        path = tree.root / name
        with path.open("rb") as file:
            start = file.read(_START).removeprefix(b"\xef\xbb\xbf").lstrip()
        if name.endswith(".json") and start.startswith(b"["):
            tasks = _label_studio(path)
            if tasks is not None:
                return _collected(tree, name, "the Label Studio export", tasks)
        elif name.endswith(".json") and start.startswith(b"{"):
            if (
                b'"images"' in start
                or b'"annotations"' in start
                or b'"categories"' in start
                or b'"info"' in start
            ):
                return _coco(tree, name)
        elif b"<annotations" in start:
            return _collected(tree, name, "the CVAT export", list(_cvat(path)))
        elif b"<annotation" in start:
            return _voc_files(tree)
    return None


def _collected(tree: Tree, name: str, what: str, entries: list[tuple[str, set[str], str]]) -> Found:
    """Match the photographs of an export; several entries of one photograph are put together."""
    matcher = Matcher(tree.images)
    merged: dict[str, tuple[set[str], str]] = {}
    for image, tags, split in entries:
        path = matcher.find(image)
        if path is not None:
            merged.setdefault(path, (set(), split))[0].update(tags)
    if not merged:
        raise UserError(
            f"{tree.root / name}: {len(entries)} entries, none of a photograph in {tree.root}"
            f"{f', the first names {entries[0][0]!r}' if entries else ''}.\n"
            "Expected the photographs beside the export: copy them there under the names that it uses."
        )
    return Found(
        what=f"{what} {name}",
        rows=tuple(
            Tagged(image=path, tags=tuple(sorted(tags)), split=split)
            for path, (tags, split) in merged.items()
        ),
        problems=tuple(matcher.problems(str(tree.root / name))),
    )


# ---- Label Studio


def _label_studio(path: Path) -> list[tuple[str, set[str], str]] | None:
    """Photographs and tags of a JSON or JSON-MIN export; None where the file is neither."""
    try:
        tasks = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, damaged or cut off ({error}): export it again.") from error
    if not tasks or not all(isinstance(task, dict) and _task_image(task) for task in tasks):
        return None
    return [
        (_task_image(task), tags, "train") for task in tasks if (tags := _task_tags(task, path)) is not None
    ]


def _task_image(task: Mapping[str, Any]) -> str:
    """The photograph of a task: the first text of its data that ends as an image file does."""
    data = task.get("data", task)
    values = [data["image"]] if isinstance(data, dict) and "image" in data else list(data.values())
    texts = [value for value in values if isinstance(value, str) and "." in PurePosixPath(value).name]
    return texts[0] if texts else ""


def _task_tags(task: Mapping[str, Any], path: Path) -> set[str] | None:
    """Every class that a task's annotations name; None for a task that nobody finished."""
    if "data" not in task:
        return _minimal_tags(task)
    try:
        done = [item for item in task.get("annotations", []) if not item.get("was_cancelled")]
        values = [result["value"] for item in done for result in item.get("result", []) if "value" in result]
        return {tag for value in values for tag in _names(value)} if done else None
    except (TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: task {task.get('id')!r} is not of Label Studio's form ({error}). Expected "
            "annotations[].result[].value.choices: export the project as JSON."
        ) from error


def _names(value: Mapping[str, Any]) -> Iterator[str]:
    """The class names in a result: choices, and labels of regions (rectanglelabels, brushlabels, ...)."""
    for key, names in value.items():
        if (key == "choices" or key.endswith("labels")) and isinstance(names, list):
            yield from (str(name).strip() for name in names)


def _minimal_tags(task: Mapping[str, Any]) -> set[str]:
    """JSON-MIN: a choice is a text, several are {"choices": [...]}; regions are a list of objects."""
    tags: set[str] = set()
    for key, value in task.items():
        if isinstance(value, dict):
            tags.update(_names(value))
        elif isinstance(value, list):
            tags.update(tag for item in value if isinstance(item, dict) for tag in _names(item))
        elif key in ("choice", "choices", "label", "tag", "class") and isinstance(value, str):
            tags.add(value.strip())
    return tags


# ---- CVAT, VOC, COCO


def _cvat(path: Path) -> Iterator[tuple[str, set[str], str]]:
    """Photographs with the labels of their tags and shapes; the subset is the split."""
    try:
        document = parse_plain_xml(read_bytes(path))
    except ValueError as error:
        raise UserError(f"{path}: not a readable CVAT export ({error}): export it again.") from error
    if document.find("track") is not None:
        raise UserError(
            f"{path}: a CVAT for video export. Expected single photographs: export as 'CVAT for images 1.1'."
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
    """VOC annotations of somebody's own, beside their photographs or in a folder of their own."""
    entries = []
    for name in tree.lists_named(".xml"):
        try:
            tags = set(read_annotation(tree.root / name))
        except UserError as error:
            raise UserError(f"{error}.") from error
        entries.append((name.removesuffix(".xml").replace("Annotations/", ""), tags, _folder_split(name)))
    return _collected(tree, f"({len(entries)} files)", "VOC annotations", entries)


def _folder_split(name: str) -> str:
    return next((SPLIT_NAMES[part] for part in name.lower().split("/") if part in SPLIT_NAMES), "train")


def _coco(tree: Tree, name: str) -> Found:
    """One COCO file: read as it is where its paths are those of the photographs, else as a list of tags."""
    instances = read_instances(tree.root / name)
    entries = []
    for image in instances.images:
        ids = instances.table[instances.of_image(image.id), 1].tolist()
        entries.append((image.file_name, {instances.categories[number] for number in ids}, "train"))
    found = _collected(tree, name, "the COCO file", entries)
    known = set(tree.images)
    for folder in ("", "images/", f"{PurePosixPath(name).parent}/"):
        if all(folder + image.file_name in known for image in instances.images):
            data = {"source": "coco", "labels": name, "images": folder.rstrip("/") or "."}
            return replace(found, data={**data, **used_classes(instances)}, listed=True)
    return replace(
        found, problems=(*found.problems, "its regions are not used: its paths are not those of the files")
    )
