"""Label masks in the formats of other programs: arrays in, files out. Equal masks give equal bytes.

    rle           run lengths: COCO's compressed string, Label Studio's packed bits
    voc           palette PNGs with a list, as in the PASCAL VOC devkit
    coco          instances JSON
    cvat          archive "Segmentation mask 1.1"
    labelstudio   tasks with brush predictions

Mask values everywhere: 0 background, c + 1 class c, 255 unsure. Where a format has no word for unsure, no
annotation covers such pixels, as none covers background.

Run-length encodings of binary masks.

PASCAL VOC: ``SegmentationClass/<id>.png`` with the VOC palette, and the list of a split.

COCO instances JSON with compressed RLE: what pycocotools reads.

CVAT's "Segmentation mask 1.1": a zip that its import takes as it is.

``labelmap.txt``, ``ImageSets/Segmentation/default.txt``, and per image ``SegmentationClass/<id>.png`` (classes) and
``SegmentationObject/<id>.png`` (numbers of the shapes that CVAT makes). The importer takes a colour for what
``labelmap.txt`` calls it and fails on others, and every label must be one of the CVAT task's; so unsure
pixels are written as background: no shape covers them.

Label Studio: tasks with brush masks as predictions, and the labelling configuration that they need.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_components

from wsss import IGNORE
from wsss.errors import UserError, listed
from wsss.pictures import encode_mask, voc_palette

MAX_OBJECTS = 254


@dataclass(frozen=True)
class LabelledImage:
    """One image that is exported.

    Attributes:
        id: relative path without extension, ``/`` between folders.
        file_name: the same with the extension of the photograph.
        labels: (H, W) uint8.
    """

    id: str
    file_name: str
    labels: NDArray[np.uint8]


Put = Callable[[str, bytes], None]
"""Takes a relative path and the content of a file."""


def regions(labels: NDArray[np.uint8], *, instances: bool) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """What gets an annotation of its own.

    Args:
        labels: (H, W) uint8.
        instances: every connected component (8 neighbours) of a class by itself; else each class as a whole.
            Tags do not say where one object ends and the next begins, and a component is not an object: two
            that touch are one, one that is hidden in part is two.

    Yields:
        Class index 0..C-1 and (H, W) bool, classes in order.
    """
    for value in np.unique(labels).tolist():
        if value in (0, IGNORE):
            continue
        mask = labels == value
        if not instances:
            yield value - 1, mask
            continue
        numbered = connected_components(mask, connectivity=2)  # type: ignore[no-untyped-call]
        for number in range(1, int(numbered.max()) + 1):
            yield value - 1, numbered == number


BRUSH_SIZES = (3, 4, 8, 16)
"""Bits in which Label Studio's format writes a run's length, by the index that stands before it."""


def run_lengths(values: NDArray[np.bool_]) -> list[int]:
    """Lengths of alternating runs of a flat array, the first of them of False (perhaps 0)."""
    edges = np.flatnonzero(np.diff(values.astype(np.int8), prepend=0, append=2))
    return [int(length) for length in np.diff(edges, prepend=0)]


def coco_counts(mask: NDArray[np.bool_]) -> str:
    """COCO's compressed RLE: column by column, as ``counts`` of a segmentation.

    Each count (from the third on, its difference to the one before the last) is written in groups of 5 bits, low
    groups first, a sixth bit says that more follow, and 48 makes it a printable character.
    Source: maskApi.c of the COCO API (Lin et al.).

    Args:
        mask: (H, W) bool.
    """
    counts = run_lengths(mask.ravel(order="F"))
    characters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            characters.append(chr(48 + (group | 32 * more)))
            if not more:
                break
    return "".join(characters)


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's brush: the mask as an RGBA image of 0 and 255, packed by @thi.ng/rle-pack.

    Bits, high first: 32 number of values, 5 word size - 1, four times 4 a size of a run length - 1; then per run
    1 (a run of equal values), 2 the index of its size, its length - 1 in that size, 8 the value.

    Args:
        mask: (H, W) bool.

    Returns:
        The bytes as numbers 0..255.
    """
    bits = [f"{4 * mask.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in BRUSH_SIZES)]
    for index, length in enumerate(run_lengths(mask.ravel())):
        value = "1" * 8 if index % 2 else "0" * 8
        bits += [f"1{_length_bits(part)}{value}" for part in _parts(4 * length)]
    flat = np.frombuffer("".join(bits).encode(), dtype=np.uint8) - ord("0")
    packed: list[int] = np.packbits(flat).tolist()
    return packed


def _length_bits(length: int) -> str:
    """Index and length of a run, in the smallest size that holds it."""
    index = next(i for i, size in enumerate(BRUSH_SIZES) if length <= 1 << size)
    return f"{index:02b}{length - 1:0{BRUSH_SIZES[index]}b}"


def _parts(length: int) -> Sequence[int]:
    """A run cut into those of at most 2^16 values."""
    most = 1 << BRUSH_SIZES[-1]
    whole, rest = divmod(length, most)
    return [most] * whole + [rest] * (rest > 0)


def voc_files(ids: Iterable[str], split: str) -> list[str]:
    """The files that `write_voc` writes, relative."""
    return [*(_mask(image_id) for image_id in ids), _list(split), "classes.txt"]


def write_voc(images: Iterable[LabelledImage], classes: Sequence[str], split: str, put: Put) -> None:
    """Write masks, then the list of their ids, and the class names in the order of the values 1..C.

    Unsure pixels keep the value 255, which VOC ignores too.
    """
    ids = []
    for image in images:
        put(_mask(image.id), encode_mask(image.labels))
        ids.append(image.id)
    put("classes.txt", "".join(f"{name}\n" for name in classes).encode())
    put(_list(split), "".join(f"{image_id}\n" for image_id in ids).encode())


def _mask(image_id: str) -> str:
    return f"SegmentationClass/{image_id}.png"


def _list(split: str) -> str:
    return f"ImageSets/Segmentation/{split}.txt"


def coco_json(
    images: Iterable[LabelledImage], classes: Sequence[str], info: Mapping[str, Any], *, instances: bool
) -> bytes:
    """The document.

    A category's id is its mask value 1..C, an image's its place 1.. in the list, which is also in order of ids.

    Args:
        images: to be written.
        classes: C names.
        info: becomes the member of that name.
        instances: see `stages.commands.export.formats.regions`.
    """
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        H, W = image.labels.shape
        number = len(pictures) + 1
        pictures.append({"id": number, "file_name": image.file_name, "height": H, "width": W})
        for c, mask in regions(image.labels, instances=instances):
            annotation = _annotation(mask) | {"image_id": number, "category_id": c + 1}
            annotations.append({"id": len(annotations) + 1, **annotation})
    document = {
        "info": dict(info),
        "licenses": [],
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": name, "supercategory": name} for c, name in enumerate(classes)],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _annotation(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "segmentation": {"size": list(mask.shape), "counts": coco_counts(mask)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }


EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the earliest a zip can say."""


def write_cvat(
    path: Path, images: Iterable[LabelledImage], classes: Sequence[str], *, instances: bool
) -> None:
    """Write the archive.

    Raises:
        UserError: a class name that ``labelmap.txt`` cannot hold, or an image with more objects than colours.
    """
    labelmap = label_map_text(classes)
    ids = []
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, "labelmap.txt", labelmap.encode())
        for image in images:
            objects = np.zeros_like(image.labels)
            for number, (_, mask) in enumerate(regions(image.labels, instances=instances), 1):
                if number > MAX_OBJECTS:
                    raise UserError(
                        f"{image.id}: more than {MAX_OBJECTS} separate regions, which this format cannot number; "
                        "export without --instances"
                    )
                objects[mask] = number
            sure = np.where(image.labels == IGNORE, np.uint8(0), image.labels)
            _add(archive, f"SegmentationClass/{image.id}.png", encode_mask(sure))
            _add(archive, f"SegmentationObject/{image.id}.png", encode_mask(objects))
            ids.append(image.id)
        _add(archive, "ImageSets/Segmentation/default.txt", "".join(f"{i}\n" for i in ids).encode())


def label_map_text(classes: Sequence[str]) -> str:
    """``labelmap.txt``: ``name:r,g,b::`` a line, background first. Raises UserError as `write_cvat`."""
    wrong = [name for name in classes if ":" in name or name.startswith("#")]
    if wrong:
        raise UserError(
            f"labelmap.txt of this format cannot hold class names with ':' or a leading '#': {listed(wrong)}"
        )
    lines = ["# label:color_rgb:parts:actions"]
    for name, colour in zip(["background", *classes], voc_palette().tolist(), strict=False):
        lines.append(f"{name}:{','.join(map(str, colour))}::")
    return "\n".join(lines) + "\n"


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, EPOCH)
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
    archive.writestr(member, content)


FROM_NAME, TO_NAME = "tag", "image"


def labelstudio_json(
    images: Iterable[LabelledImage], classes: Sequence[str], *, model: str, prefix: str, instances: bool
) -> bytes:
    """The tasks.

    Args:
        images: to be written.
        classes: C names.
        model: becomes ``model_version`` of the predictions.
        prefix: what stands before an image's name to make it an address that Label Studio can open.
        instances: see `stages.commands.export.formats.regions`.
    """
    tasks = [
        {
            "data": {"image": prefix + quote(image.file_name)},
            "predictions": [{"model_version": model, "result": _results(image, classes, instances)}],
        }
        for image in images
    ]
    return json.dumps(tasks, ensure_ascii=False, separators=(",", ":")).encode()


def labelling_config(classes: Sequence[str]) -> str:
    """The XML to paste into the project's settings: one brush per class in its VOC colour."""
    palette = voc_palette().tolist()
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(palette[c + 1]).hex()}"/>\n'
        for c, name in enumerate(classes)
    )
    return (
        f'<View>\n  <Image name="{TO_NAME}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{FROM_NAME}" toName="{TO_NAME}">\n{labels}  </BrushLabels>\n</View>\n'
    )


def _results(image: LabelledImage, classes: Sequence[str], instances: bool) -> list[dict[str, Any]]:
    H, W = image.labels.shape
    results = []
    for number, (c, mask) in enumerate(regions(image.labels, instances=instances)):
        results.append(
            {
                # Unique within the task and the same whenever it is exported.
                "id": hashlib.sha256(f"{image.id}\n{number}".encode()).hexdigest()[:10],
                "type": "brushlabels",
                "from_name": FROM_NAME,
                "to_name": TO_NAME,
                "original_width": W,
                "original_height": H,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": brush_rle(mask), "brushlabels": [classes[c]]},
            }
        )
    return results
