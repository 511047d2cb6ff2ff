"""Lists and exports: CSV and JSON tables, Label Studio, CVAT, FiftyOne, labelme, VOC annotations, one COCO file.

Formats: https://labelstud.io/guide/export (JSON and JSON-MIN), https://docs.cvat.ai/docs/other/xml_format (CVAT for
images 1.1), https://docs.voxel51.com/user_guide/export_datasets.html#fiftyoneimageclassificationdataset,
https://github.com/wkentaro/labelme, the VOC devkit, https://cocodataset.org/#format-data
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from data.images import read_bytes
from data.own.layouts import used_classes
from data.own.tree import Found, Tree, matched
from data.sources.coco import read_instances
from data.sources.listing import Entry
from data.sources.table import SPLIT_NAMES, NamedImages, read_list
from data.sources.voc import parse_xml, read_annotation
from wsss.errors import UserError, listed, plural

_START = 65_536  # bytes that tell one export from another
_COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_SHAPES = ("tag", "box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")


# ---- tables


def find_table(tree: Tree) -> Found | str:
    """Read the CSV or JSON Lines that names images and tags; several of one form, a file per split, are read together.

    Raises:
        UserError: the only list with such columns names no image, or cannot be read.
    """
    tried: dict[str, NamedImages] = {}
    reasons: list[UserError] = []
    for name in tree.lists_named(".csv", ".tsv", ".jsonl", ".txt"):
        try:
            found = read_list(
                tree.root / name,
                splits=(_split_of(name),),
                image=tree.wanted.image_column,
                tags=tree.wanted.tag_columns,
            )
            if tried and (not _split_of(name, "") or found.how != next(iter(tried.values())).how):
                continue
            matched(tree, name, "", found.entries)
        except UserError as error:
            reasons.append(error)
            continue
        tried[name] = found
        if not _split_of(name, ""):
            break
    if not tried:
        if reasons:
            raise UserError("\n".join(map(str, reasons[:3])))
        return "no list (CSV, JSON Lines) with a column of images and one of tags"
    first, *more = tried
    entries = [entry for read in tried.values() for entry in read.entries]
    notes = [f"{name}: {note}" for name, read in tried.items() for note in read.notes]
    others = [name for name in tree.lists_named(".csv", ".tsv", ".jsonl") if name not in tried]
    if others:
        notes.append(f"other lists there: {listed(others, ', ')}; init --list FILE reads another")
    how = f"the list{'s' if more else ''} {', '.join(tried)} ({tried[first].how})"
    table = matched(tree, first, how, entries, notes)
    wrong = [text for read in tried.values() for text in read.wrong]
    problems = [f"{first}: {plural(len(wrong), 'row')} left out: {listed(wrong[:3])}"] if wrong else []
    problems += [f"not used: {' '.join(str(reason).splitlines())}" for reason in reasons]
    table = replace(table, problems=(*table.problems, *problems))
    whole = len({entry.image for entry in entries}) == len(table.entries) and not problems
    usual = first == "labels.csv" and not more and not tree.wanted.tag_columns
    if whole and usual and all(entry.image.startswith("images/") for entry in table.entries):
        what = f"labels.csv and images/, as this program reads them ({tried[first].how})"
        return replace(table, what=what, listed=True, notes=())  # whoever reads it says them
    return table


def _split_of(name: str, default: str = "train") -> str:
    """The split that a path names: its folder, its stem, or the first or last word of it."""
    path = PurePosixPath(name.lower())
    words = [*path.parts[:-1][::-1], path.stem, *path.stem.replace("-", "_").split("_")]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), default)


# ---- exports


def find_export(tree: Tree) -> Found | str:
    """Read the export nearest to the root.

    Raises:
        UserError: the only one is damaged or of no image in the folder.
    """
    reasons: list[UserError] = []
    kinds: dict[Callable[[Tree, str], Found | None], bool] = {}
    for name in tree.lists_named(".json", ".xml"):
        with (tree.root / name).open("rb") as file:
            read = _kind(name, file.read(_START).removeprefix(b"\xef\xbb\xbf").lstrip())
        if read is None or kinds.get(read):
            continue
        kinds[read] = read in (_voc_files, _labelme_files)  # all such files are read at once
        try:
            found = read(tree, name)
        except UserError as error:
            reasons.append(error)
            continue
        if found is not None:
            told = [f"not used: {' '.join(str(reason).splitlines())}" for reason in reasons]
            return replace(found, problems=(*found.problems, *told))
    if reasons:
        raise reasons[0]
    others = f" ({listed(list(tree.lists), ', ')})" if tree.lists else ""
    return f"no export of a labelling tool that is known{others}"


def _kind(name: str, start: bytes) -> Callable[[Tree, str], Found | None] | None:
    """What reads a file that begins so."""
    if name.lower().endswith(".xml"):
        return _cvat_file if b"<annotations" in start else _voc_files if b"<annotation" in start else None
    if start.startswith(b"["):
        return _tasks
    if b'"shapes"' in start or b'"imagePath"' in start:
        return _labelme_files
    if any(key in start for key in _COCO_KEYS):
        return _coco
    return _fiftyone if b'"labels"' in start else _json_table


def _json_table(tree: Tree, name: str) -> Found | None:
    """A list of records, or an object that gives each image its tags; None for JSON of another kind."""
    try:
        found = read_list(tree.root / name, image=tree.wanted.image_column, tags=tree.wanted.tag_columns)
    except UserError:
        if tree.wanted.list:
            raise
        return None
    return matched(tree, name, f"the list {name} ({found.how})", found.entries, found.notes)


def _tasks(tree: Tree, name: str) -> Found | None:
    tasks = _label_studio(tree.root / name)
    return (
        _json_table(tree, name)
        if tasks is None
        else matched(tree, name, f"the Label Studio export {name}", tasks)
    )


class _FiftyOne(msgspec.Struct):
    labels: dict[str, Any]
    classes: list[str] = []


def _fiftyone(tree: Tree, name: str) -> Found | None:
    """FiftyOne's classification export: classes, and for each image one, several, or their names."""
    try:
        content = msgspec.json.decode(read_bytes(tree.root / name), type=_FiftyOne)
    except (ValueError, RecursionError):
        return _json_table(tree, name)
    try:
        entries = [
            Entry(image=image, tags=tuple(_fiftyone_names(value, content.classes)), split=_split_of(name))
            for image, value in content.labels.items()
        ]
    except IndexError as error:
        raise UserError(
            f"{tree.root / name}: a label is beyond its {len(content.classes)} classes: export it again."
        ) from error
    return matched(tree, name, f"the FiftyOne export {name}", entries)


def _fiftyone_names(value: Any, classes: Sequence[str]) -> Iterator[str]:
    """The names in a label: a number or name, with attributes an object, a list of any of these, or null."""
    if isinstance(value, dict):
        value = value.get("label", value.get("labels"))
    if isinstance(value, list):
        for item in value:
            yield from _fiftyone_names(item, classes)
    elif value is not None:
        yield classes[value] if isinstance(value, int) else str(value)


class _Shape(msgspec.Struct):
    label: str


class _Labelme(msgspec.Struct):
    imagePath: str  # noqa: N815  # as labelme has it
    shapes: list[_Shape] = []
    flags: dict[str, Any] = {}


def _labelme_files(tree: Tree, _: str) -> Found:
    """labelme: a file per image, with the labels of its shapes and the flags that are set."""
    entries, others = [], []
    for name in tree.lists_named(".json"):
        try:
            content = msgspec.json.decode(read_bytes(tree.root / name), type=_Labelme)
        except (ValueError, RecursionError):
            others.append(name)
            continue
        place = PurePosixPath(name).parent / content.imagePath.replace("\\", "/")
        tags = [shape.label for shape in content.shapes] + [
            flag for flag, on in content.flags.items() if on is True
        ]
        entries.append(Entry(image=str(place), tags=tuple(dict.fromkeys(tags)), split=_split_of(name)))
    found = matched(tree, "*.json", f"labelme annotations ({plural(len(entries), 'file')})", entries)
    left = f"{plural(len(others), 'file')} that are no labelme annotations ({listed(others[:3], ', ')}); left out"
    return replace(found, problems=(*found.problems, left)) if others else found


# ---- Label Studio


class _Result(msgspec.Struct):
    value: dict[str, Any] = {}


class _Annotation(msgspec.Struct):
    was_cancelled: bool = False
    result: list[_Result] = []


class _Task(msgspec.Struct):
    annotations: list[_Annotation] = []


def _label_studio(path: Path) -> list[Entry] | None:
    """Images and tags of a JSON or JSON-MIN export; None where the file is neither."""
    try:
        tasks = msgspec.json.decode(read_bytes(path).removeprefix(b"\xef\xbb\xbf"), type=list[Any])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, damaged or cut off ({error}): export it again.") from error
    known = [task for task in tasks if isinstance(task, dict) and {"data", "annotation_id"} & set(task)]
    if not known or not all(_task_image(task) for task in known):
        return None
    return [
        Entry(image=_task_image(task), tags=tuple(sorted(tags)), split="train")
        for task in tasks
        if (tags := _task_tags(task, path)) is not None
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


def _cvat_file(tree: Tree, name: str) -> Found | None:
    entries = list(_cvat(tree.root / name))
    return matched(tree, name, f"the CVAT export {name}", entries) if entries else None


def _cvat(path: Path) -> Iterator[Entry]:
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
        labels = [shape.get("label") or "" for shape in image if shape.tag in _SHAPES]
        if not name or not all(labels):
            raise UserError(
                f"{path}: image {image.get('id', number)} lacks a name, or one of its tags a label. Expected "
                "'CVAT for images 1.1': export it again."
            )
        subset = (image.get("subset") or "train").lower()
        yield Entry(image=name, tags=tuple(dict.fromkeys(labels)), split=SPLIT_NAMES.get(subset, subset))


def _voc_files(tree: Tree, _: str) -> Found:
    """VOC annotations of somebody's own, beside their images or in a folder of their own."""
    entries, others = [], []
    for name in tree.lists_named(".xml"):
        try:
            tags = read_annotation(tree.root / name)
        except UserError as error:
            others.append(f"{error}")
            continue
        image = name.removesuffix(".xml").replace("Annotations/", "")
        entries.append(Entry(image=image, tags=tags, split=_split_of(f"{image}/x")))
    if not entries:
        raise UserError(f"{others[0]}.")
    found = matched(tree, "*.xml", f"VOC annotations ({plural(len(entries), 'file')})", entries)
    left = f"{plural(len(others), 'annotation')} left out: {listed(others[:3])}"
    return replace(found, problems=(*found.problems, left)) if others else found


def _coco(tree: Tree, name: str) -> Found:
    """One COCO file: read as it is where its paths are those of the images, else as a list of tags."""
    instances = read_instances(tree.root / name)
    named = [
        Entry(
            image=image.file_name,
            tags=tuple(dict.fromkeys(instances.categories[number] for number in image.categories)),
            split="train",
        )
        for image in instances.images
    ]
    found = matched(tree, name, f"the COCO file {name}", named)
    known = set(tree.images)
    for folder in ("", "images/", f"{PurePosixPath(name).parent}/"):
        if all(folder + image.file_name in known for image in instances.images):
            data = {"source": "coco", "labels": name, "images": folder.rstrip("/") or "."}
            return replace(found, data={**data, **used_classes(instances)}, listed=True)
    unused = (
        "its regions are not used, only its categories: its paths are not all those of files below one folder"
    )
    return replace(found, problems=(*found.problems, unused))
