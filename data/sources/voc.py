"""The PASCAL VOC devkit layout, and SBD beside it: JPEGImages, Annotations, ImageSets/Segmentation, masks.

Source of the layout: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec

from data.sources.folder import tags_from_masks
from data.sources.listing import Entry, Listing, check_entries, existing_folder, read_text, tidy, with_masks
from data.sources.table import IMAGE_SUFFIXES, image_files, read_list
from wsss.config import DataConfig
from wsss.errors import UserError, listing_error

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LISTS = "ImageSets/Segmentation"
_SPELLINGS = {"train_aug": ("train_aug", "trainaug"), "trainaug": ("trainaug", "train_aug")}
_MASKS = ("SegmentationClass", "SegmentationClassAug", "benchmark_RELEASE/dataset/cls")
_UNLABELLED = "test"  # published without annotations and masks


def read_voc(config: DataConfig) -> Listing:
    """Read the two split lists and the tags of their images.

    The tags of an image are the names of the objects in its annotation, difficult ones too; those of an image
    without an annotation come from the CSV ``data.tags``. Images of the split ``test`` have neither tags nor
    masks. ``data.images`` does not apply. Without ``data.classes`` the classes are the 20 of
    VOC in their published order, so that a mask value is a class position + 1.

    With ``data.masks = "auto"`` a mask is looked for in SegmentationClass, then SegmentationClassAug (SBD as
    PNG), then benchmark_RELEASE/dataset/cls (SBD as published).

    ``data.labels`` names another folder of lists, as PASCAL-Context has. They are of other classes than the
    annotations, so all tags come from ``data.tags`` then.

    Raises:
        UserError: a folder, list or annotation that is missing or malformed.
    """
    listing = _listed(config)
    table = _tag_table(listing.root / config.tags) if config.tags else {}
    return replace(listing, entries=_with_tags(listing, table, annotated=_annotated(config)))


def voc_tags(config: DataConfig, *, progress: bool) -> tuple[Entry, ...]:
    """Tags of both splits, from annotations or else masks. Raises UserError as `data.sources.derive_tags`."""
    listing = _listed(config)
    entries = [entry for entry in listing.entries if entry.split != _UNLABELLED]
    annotations = {entry.id: listing.root / "Annotations" / f"{entry.id}.xml" for entry in entries}
    lacking = tuple(
        entry for entry in entries if not (_annotated(config) and annotations[entry.id].is_file())
    )
    derived = {
        entry.id: entry for entry in tags_from_masks(replace(listing, entries=lacking), progress=progress)
    }
    return tuple(
        derived.get(entry.id)
        or msgspec.structs.replace(
            entry, tags=read_annotation(annotations[entry.id]), derived_from="their XML annotations"
        )
        for entry in entries
    )


def read_annotation(path: Path) -> tuple[str, ...]:
    """Return the sorted, distinct names of the objects in a VOC annotation, without those of their parts.

    Raises:
        UserError: a file that is missing, not XML, has a DOCTYPE, or is not a VOC annotation.
    """
    try:
        tree = parse_xml(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist, expected the image's annotation: add it, unlist the image, or derive tags from "
            "the masks (command tags, then data.tags)"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable XML annotation ({error}): replace it") from error
    names = [thing.findtext("name") for thing in tree.findall("object")]
    if tree.tag != "annotation" or not all(names):
        raise UserError(
            f"{path} is not a VOC annotation: expected <annotation> with a <name> in each <object>"
        )
    return tuple(sorted({tidy(name) for name in names if name}))


def parse_xml(data: bytes) -> ET.Element:
    """Parse XML without a DOCTYPE, and so without entities that grow or name other files. Raises ValueError."""
    if b"<!DOCTYPE" in data or b"\0" in data:  # UTF-16 would hide one
        raise ValueError("it has a DOCTYPE, which may define entities, or is no UTF-8")
    declared = re.match(rb"<\?xml[^>]*encoding=[\"']([\w.-]+)[\"'][^>]*\?>", data)
    try:
        if not declared or declared[1].lower() in (b"utf-8", b"ascii"):
            return ET.fromstring(data)
        text = data[declared.end() :].decode(declared[1].decode())  # the parser knows few encodings
        if "<!DOCTYPE" in text:
            raise ValueError("it has a DOCTYPE")
        return ET.fromstring(text)
    except (ET.ParseError, LookupError) as error:
        raise ValueError(str(error)) from error


def _annotated(config: DataConfig) -> bool:
    """Whether the devkit's annotations are of the classes that are asked for."""
    return config.labels == "auto"


def _listed(config: DataConfig) -> Listing:
    """The entries of the two split lists, checked, with their masks and still without tags."""
    root = _devkit(existing_folder(Path(config.root), "root"))
    lists = root / _LISTS if _annotated(config) else existing_folder(root / config.labels, "labels")
    entries = []
    there = image_files(root / "JPEGImages")
    files = {PurePosixPath(name).stem: name for name in there}
    for split, required in ((config.train_split, True), (config.val_split, False)):
        entries += _read_list(lists, split, files, required=required)
    if config.masks == "auto":
        folders = [root / name for name in _MASKS if (root / name).is_dir()]
    else:
        folders = [existing_folder(root / config.masks, "masks")] if config.masks else []
    listing = Listing(
        root=root,
        place=lists,
        images=root / "JPEGImages",
        masks=folders[0] if folders else None,
        classes=config.classes or VOC_CLASSES,
        classes_from="data.classes" if config.classes else "the 20 VOC classes",
        entries=tuple(entries),
        unlabelled=_UNLABELLED,
    )
    check_entries(listing, config.train_split)  # before the annotations: that of a bad id must not be opened
    return with_masks(listing, folders)


def _devkit(root: Path) -> Path:
    """Return the folder that holds JPEGImages: ``root`` itself or the VOC2012 inside."""
    places = (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    looked = ", ".join(str(place / "JPEGImages") for place in places)
    raise UserError(f"{root}: not a VOC devkit. Expected one of the folders {looked}: correct data.root.")


def _read_list(folder: Path, split: str, files: Mapping[str, str], *, required: bool) -> list[Entry]:
    """The entries of a split's list, under whichever of its usual names; none if it is missing and not required.

    A line is an image's id, or the path of its file, perhaps followed by that of its mask.
    """
    places = [folder / f"{name}.txt" for name in _SPELLINGS.get(split, (split,))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        if not required:
            return []
        hint = (
            " docs/data.md says how it is made from the lists of VOC and SBD." if split in _SPELLINGS else ""
        )
        raise UserError(
            f"{places[0]}: no such file. Expected the list of the split {split!r}, one image id per line.{hint}"
        )
    entries = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip() if line.strip() in files else PurePosixPath((line.split() or [""])[0]).name
        if name.lower().endswith(IMAGE_SUFFIXES):
            name = PurePosixPath(name).stem
        if name:
            where = f"{path.name} line {number}"
            entries.append(Entry(where=where, image=files.get(name, f"{name}.jpg"), split=split))
    return entries


def _with_tags(listing: Listing, table: Mapping[str, Entry], *, annotated: bool) -> tuple[Entry, ...]:
    annotations = listing.root / "Annotations"
    tagged, problems = [], []
    for entry in listing.entries:
        if entry.split == _UNLABELLED:
            tagged.append(entry)
            continue
        path = annotations / f"{entry.id}.xml"
        given = table.get(entry.id)
        if not (given or annotated):
            problems.append(f"{entry.where}: {entry.id} is not in data.tags, which the command `tags` writes")
            continue
        if given and not (annotated and path.is_file()):
            tagged.append(msgspec.structs.replace(entry, tags=given.tags, derived_from=given.derived_from))
            continue
        try:
            where = f"{entry.where} ({entry.id}.xml)"
            tagged.append(msgspec.structs.replace(entry, where=where, tags=read_annotation(path)))
        except UserError as error:
            problems.append(f"{entry.where}: {error}")
    if problems:
        what = f"{annotations}: {len(problems)} annotation(s) cannot be used"
        if not annotated:
            what = f"{listing.place}: {len(problems)} image(s) without tags"
        raise listing_error(what, problems)
    return tuple(tagged)


def _tag_table(path: Path) -> dict[str, Entry]:
    """The entries of the CSV ``image,tags[,derived_from]`` by image id; images are named with or without .jpg."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file. Expected the CSV of data.tags with the header image,tags,derived_from: the "
            "command `tags` writes it."
        )
    return {entry.id: entry for entry in read_list(path).entries}
