"""The PASCAL VOC devkit layout, and SBD beside it: JPEGImages, Annotations, ImageSets/Segmentation, masks.

Source of the layout: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.plain_xml import parse_plain_xml
from data.sources.folder import parse_csv
from data.sources.rows import RawListing, Row, check_rows, existing_folder, read_text, with_masks
from wsss.config import DataConfig
from wsss.errors import UserError, listed

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_LISTS = "ImageSets/Segmentation"
_SPELLINGS = {"train_aug": ("train_aug", "trainaug"), "trainaug": ("trainaug", "train_aug")}
_MASKS = ("SegmentationClass", "SegmentationClassAug", "benchmark_RELEASE/dataset/cls")
UNLABELLED = "test"  # published without annotations and masks


def read_voc(config: DataConfig) -> RawListing:
    """Read the two split lists and the tags of their images.

    The tags of an image are the names of the objects in its annotation, difficult ones too; those of an image
    without an annotation come from the CSV ``data.tags``. Images of the split ``test`` have neither tags nor
    masks. ``data.labels`` and ``data.images`` do not apply. Without ``data.classes`` the classes are the 20 of
    VOC in their published order, so that a mask value is a class position + 1.

    With ``data.masks = "auto"`` a mask is looked for in SegmentationClass, then SegmentationClassAug (SBD as
    PNG), then benchmark_RELEASE/dataset/cls (SBD as published).

    Raises:
        UserError: a folder, list or annotation that is missing or malformed.
    """
    raw = list_voc(config)
    table = tag_table(raw.root / config.tags) if config.tags else {}
    return replace(raw, rows=_with_tags(raw.rows, raw.root / "Annotations", table))


def list_voc(config: DataConfig) -> RawListing:
    """Return the rows of the two split lists, checked, with their masks and still without tags."""
    root = _devkit(existing_folder(Path(config.root), "root"))
    rows = []
    for split, required in ((config.train_split, True), (config.val_split, False)):
        rows += _read_list(_list_file(root / _LISTS, split), split, required=required)
    folders = _mask_folders(root, config.masks)
    raw = RawListing(
        root=root,
        place=root / _LISTS,
        images=root / "JPEGImages",
        masks=folders[0] if folders else None,
        classes=config.classes or VOC_CLASSES,
        classes_from="data.classes" if config.classes else "the 20 VOC classes",
        rows=tuple(rows),
        ignored={},
        unlabelled=UNLABELLED,
    )
    check_rows(raw, config.train_split)  # before the annotations: a bad id must not be opened
    return with_masks(raw, folders) if folders else raw


def _mask_folders(root: Path, setting: str) -> list[Path]:
    if setting == "auto":
        return [root / name for name in _MASKS if (root / name).is_dir()]
    return [existing_folder(root / setting, "masks")] if setting else []


def _list_file(folder: Path, split: str) -> Path:
    """Return the list of a split, under whichever of its usual names it is there."""
    places = [folder / f"{name}.txt" for name in _SPELLINGS.get(split, (split,))]
    return next((place for place in places if place.is_file()), places[0])


def _devkit(root: Path) -> Path:
    """Return the folder that holds JPEGImages: ``root`` itself or the VOC2012 inside."""
    places = (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    looked = ", ".join(str(place / "JPEGImages") for place in places)
    raise UserError(f"{root}: not a VOC devkit. Expected one of the folders {looked}: correct data.root.")


def _read_list(path: Path, split: str, *, required: bool) -> list[Row]:
    """Return the rows of a split list, still without tags; a list that is not required may be missing."""
    if not path.is_file():
        if required:
            hint = (
                " docs/data.md says how it is made from the lists of VOC and SBD."
                if split in _SPELLINGS
                else ""
            )
            raise UserError(
                f"{path}: no such file. Expected the list of the split {split!r}, one image id per line.{hint}"
            )
        return []
    rows, wrong = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if len(name.split()) > 1:
            wrong.append(f"line {number} is {name!r}")
        elif name:
            rows.append(Row(where=f"{path.name} line {number}", image=f"{name}.jpg", tags=(), split=split))
    if wrong:
        raise UserError(
            f"{path}: expected one image id per line, such as 2007_000032; {listed(wrong)}.\n"
            r"Correct the list; one of paths becomes one of ids by: sed -E 's|.*/([^/]+)\.png$|\1|'"
        )
    return rows


def _with_tags(rows: Sequence[Row], annotations: Path, table: Mapping[str, Row]) -> tuple[Row, ...]:
    tagged, problems = [], []
    for row in rows:
        if row.split == UNLABELLED:
            tagged.append(row)
            continue
        path = annotations / f"{row.id}.xml"
        given = table.get(row.id)
        if given and not path.is_file():
            tagged.append(replace(row, tags=given.tags, derived_from=given.derived_from))
            continue
        try:
            tags = read_annotation(path)
        except UserError as error:
            problems.append(f"{row.where}: {error}")
            continue
        tagged.append(replace(row, where=f"{row.where} ({row.id}.xml)", tags=tags))
    if problems:
        raise UserError(f"{annotations}: {len(problems)} annotation(s) cannot be used:\n{listed(problems)}")
    return tuple(tagged)


def tag_table(path: Path) -> dict[str, Row]:
    """Return the rows of the CSV ``image,tags[,derived_from]`` by image id; images are named with or without .jpg."""
    if not path.is_file():
        raise UserError(
            f"{path}: no such file. Expected the CSV of data.tags with the header image,tags,derived_from: the "
            "command `tags` writes it."
        )
    rows = parse_csv(read_text(path), path, default_split="")
    return {row.image.removesuffix(".jpg"): row for row in rows}


def read_annotation(path: Path) -> tuple[str, ...]:
    """Return the sorted, distinct names of the objects in a VOC annotation, without those of their parts.

    Raises:
        UserError: a file that is missing, not XML, has a DOCTYPE, or is not a VOC annotation.
    """
    try:
        tree = parse_plain_xml(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist, expected the image's annotation: add it, unlist the image, or give data.tags"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable XML annotation ({error}): replace it") from error
    names = [thing.findtext("name") for thing in tree.findall("object")]
    if tree.tag != "annotation" or not all(names):
        raise UserError(
            f"{path} is not a VOC annotation: expected <annotation> with a <name> in each <object>"
        )
    return tuple(sorted({name for name in names if name}))
