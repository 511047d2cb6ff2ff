"""Label masks in the formats of other programs: arrays in, files out. Equal masks give equal bytes.

    voc           palette PNGs, a list and the class names, as in the PASCAL VOC devkit
    coco          instances JSON with compressed RLE
    cvat          archive "Segmentation mask 1.1", which CVAT imports as it is
    labelstudio   tasks with brush predictions, and the labelling configuration that they need
    yolo          a text file of polygons per image, and data.yaml, as Ultralytics trains segmentation from

Labels everywhere: 0 background, c + 1 class c, 255 uncertain. VOC ignores 255 too and keeps it; elsewhere no
annotation covers such pixels, as none covers background. A format is a generator of file names (relative, with ``/``)
and contents. The file that lists the others comes last, so what is listed is there.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.spatial import cKDTree
from skimage.measure import find_contours
from skimage.measure import label as connected_components

from wsss import IGNORE
from wsss.errors import UserError, listed
from wsss.pictures import encode_mask, voc_palette

MAX_OBJECTS = 254
BRUSH_SIZES = (3, 4, 8, 16)
"""Numbers of bits in which Label Studio's format writes the length of a run, by their index."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a zip: the earliest that a zip can hold."""
_UNSAYABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Control characters, bytes that are no UTF-8, and what XML has not: lines, JSON or XML would break."""


@dataclass(frozen=True)
class LabelledImage:
    """One image: its id (relative path without extension), the same with its extension, and labels (H, W) uint8.

    ``score``: of the order of review, in (0, 1); less needs a look sooner; None where it is not known.
    """

    id: str
    file_name: str
    labels: NDArray[np.uint8]
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What the files say of the masks as a whole: where they come from, the C classes.

    Label Studio can open an image's name with ``prefix`` before it; ``instances``: see `regions`.
    """

    run: str
    source: Literal["masks", "predictions"]
    split: str
    fingerprint: str
    classes: Sequence[str]
    instances: bool = False
    prefix: str = ""


Files = Iterator[tuple[str, bytes]]


def file_names(name: str, ids: Sequence[str], split: str) -> list[str]:
    """The files of a format, the main one first."""
    if name == "voc":
        return [_voc_list(split), "classes.txt", *map(_voc_mask, ids)]
    if name == "yolo":
        return ["data.yaml", *(_yolo_labels(split, image_id) for image_id in ids)]
    if name == "labelstudio":
        return [f"tasks_{split}.json", "labelling_config.xml"]
    if name == "cvat":
        return [f"segmentation_mask_{split}.zip", f"order_{split}.txt"]
    return [f"instances_{split}.json"]


def check_names(name: str, ids: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse names that the files of a format cannot hold, or that would lie elsewhere. Raises UserError."""
    problems: dict[str, list[str]] = {}
    for what, names in (("image", ids), ("class", classes)):
        for text in names:
            reason = ""
            if _UNSAYABLE.search(text):
                reason = "hold control characters or bytes that are no text"
            elif what == "image" and ({"", ".", ".."} & set(text.split("/")) or "\\" in text):
                reason = "are no plain relative paths"
            elif name in ("voc", "cvat") and text != text.strip():
                reason = "begin or end with a space, which readers of lists drop"
            elif name == "cvat" and text.startswith("#"):
                reason = "begin with #, which CVAT takes for a comment"
            elif name == "cvat" and what == "class" and ":" in text:
                reason = "hold a colon, which separates the fields of labelmap.txt"
            if reason:
                problems.setdefault(f"{what} names that {reason}", []).append(repr(text))
    if problems:
        lines = [f"{sentence}: {listed(names, ', ')}" for sentence, names in problems.items()]
        remedy = " or take --format coco, which CVAT imports too" if name == "cvat" else ""
        raise UserError("\n".join([f"--format {name} cannot hold", *lines, f"Rename them{remedy}."]))


def regions(labels: NDArray[np.uint8], *, instances: bool) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """(H, W) uint8 labels -> class index 0..C-1 and (H, W) bool of what gets an annotation of its own, class by class.

    That is each class as a whole, or with ``instances`` each of its connected components (8 neighbours). A component is
    not an object: two that touch are one, and one that is partly hidden may be two.
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


def voc(images: Iterable[LabelledImage], about: Labelling) -> Files:
    """Masks, the class names in the order of the labels 1..C, and the list of the masks' ids."""
    ids = []
    for image in images:
        yield _voc_mask(image.id), encode_mask(image.labels)
        ids.append(image.id)
    yield "classes.txt", _lines(about.classes)
    yield _voc_list(about.split), _lines(ids)


def coco(images: Iterable[LabelledImage], about: Labelling) -> Files:
    """One document. A category's id is its label 1..C, an image's its place 1.. among the images."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        H, W = image.labels.shape
        entries.append({"id": number, "file_name": image.file_name, "height": H, "width": W})
        for c, mask in regions(image.labels, instances=about.instances):
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "segmentation": {"size": [H, W], "counts": rle["counts"].decode()},
                    "area": int(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).astype(int).tolist(),
                    "iscrowd": 0,
                    "image_id": number,
                    "category_id": c + 1,
                }
            )
    description = f"{about.source} of split {about.split}, run {about.run}"
    document = {
        "info": {"description": description, "version": about.fingerprint},
        "licenses": [],
        "images": entries,
        "annotations": annotations,
        "categories": [
            {"id": c + 1, "name": name, "supercategory": name} for c, name in enumerate(about.classes)
        ],
    }
    yield file_names("coco", [], about.split)[0], _json(document)


def cvat(images: Iterable[LabelledImage], about: Labelling) -> Files:
    """One archive: ``labelmap.txt``, and per image a PNG of classes and one of the numbers of its shapes.

    Beside it the images' names as they come, which is the order of review: CVAT sorts a task by a list if it is asked.

    The importer looks colours up in ``labelmap.txt`` and fails on others, and every label must be one of the CVAT
    task's: so uncertain pixels are background here.

    Raises:
        UserError: an image with more objects than numbers.
    """
    content = BytesIO()
    ids, names = [], []
    with zipfile.ZipFile(content, "w") as archive:
        _add(archive, "labelmap.txt", _label_map(about.classes))
        for image in images:
            objects = np.zeros_like(image.labels)
            for number, (_, mask) in enumerate(regions(image.labels, instances=about.instances), start=1):
                if number > MAX_OBJECTS:
                    raise UserError(
                        f"{image.id}: more than {MAX_OBJECTS} separate regions, which this format cannot number; "
                        "export without --instances"
                    )
                objects[mask] = number
            certain = np.where(image.labels == IGNORE, np.uint8(0), image.labels)
            _add(archive, f"SegmentationClass/{image.id}.png", encode_mask(certain))
            _add(archive, f"SegmentationObject/{image.id}.png", encode_mask(objects))
            ids.append(image.id)
            names.append(image.file_name)
        _add(archive, "ImageSets/Segmentation/default.txt", _lines(ids))
    main, order = file_names("cvat", [], about.split)
    yield order, _lines(names)
    yield main, content.getvalue()


def labelstudio(images: Iterable[LabelledImage], about: Labelling) -> Files:
    """The XML to paste into the project's settings, a brush per class in its VOC colour; and the tasks."""
    tasks, config = file_names("labelstudio", [], about.split)
    brushes = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
        for name, colour in zip(about.classes, voc_palette()[1:].tolist(), strict=False)
    )
    xml = (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="tag" toName="image">\n{brushes}  </BrushLabels>\n</View>\n'
    )
    yield config, xml.encode()
    document = []
    for image in images:
        H, W = image.labels.shape
        results = [
            {
                # Unique within the task, and the same whenever it is exported.
                "id": hashlib.sha256(f"{image.id}\n{number}".encode()).hexdigest()[:10],
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": W,
                "original_height": H,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": brush_rle(mask), "brushlabels": [about.classes[c]]},
            }
            for number, (c, mask) in enumerate(regions(image.labels, instances=about.instances))
        ]
        prediction: dict[str, Any] = {"model_version": f"{about.run} {about.fingerprint}", "result": results}
        if image.score is not None:
            prediction["score"] = round(image.score, 4)
        task = {"data": {"image": about.prefix + quote(image.file_name)}, "predictions": [prediction]}
        document.append(task)
    yield tasks, _json(document)


def yolo(images: Iterable[LabelledImage], about: Labelling) -> Files:
    """Per image a line ``class x y x y ...`` for each connected component, whatever ``instances`` says.

    The format has one polygon for an object, in shares of width and height: see `outline`. Classes count from 0, and
    an image without any is an empty file, which is a background image to YOLO.
    """
    for image in images:
        H, W = image.labels.shape
        lines = []
        for c, mask in regions(image.labels, instances=True):
            lines.append(" ".join([str(c), *(f"{share:.6g}" for share in (outline(mask) / (W, H)).ravel())]))
        yield _yolo_labels(about.split, image.id), _lines(lines)
    names = [f"  {c}: {json.dumps(name, ensure_ascii=False)}" for c, name in enumerate(about.classes)]
    # YOLO looks for labels where an image's path has images: the images belong there, or a link to their folder.
    yield (
        "data.yaml",
        _lines([f"{key}: images/{about.split}" for key in ("train", "val")] + ["names:", *names]),
    )


FORMATS: Mapping[str, Callable[[Iterable[LabelledImage], Labelling], Files]] = {
    "voc": voc,
    "coco": coco,
    "cvat": cvat,
    "labelstudio": labelstudio,
    "yolo": yolo,
}


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(H, W) bool, one component -> (n, 2) x and y of its outline, where a pixel covers one unit and corners are cut.

    Each hole is joined to it by a seam of no width, there and back at the nearest corners: filled by the even-odd rule
    it stays empty, and the centres of pixels inside are the mask's.
    """
    loops = []
    for loop in find_contours(np.pad(mask, 1).astype(np.float64), 0.5, fully_connected="high"):  # type: ignore[no-untyped-call]
        corners = loop[:-1, ::-1] - 0.5
        step = np.roll(corners, -1, axis=0) - corners
        loops.append(corners[(step != np.roll(step, 1, axis=0)).any(1)])
    # The leftmost point is the outline's, never a hole's.
    ring, *holes = sorted(loops, key=lambda loop: float(loop[:, 0].min()))
    for hole in holes:
        distances, nearest = cKDTree(ring).query(hole)
        start = int(distances.argmin())
        place, turned = int(nearest[start]), np.roll(hole, -start, axis=0)
        ring = np.concatenate([ring[: place + 1], turned, turned[:1], ring[place:]])
    return np.asarray(ring)


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's brush: the mask as an RGBA image of 0 and 255, in run lengths as @thi.ng/rle-pack packs them.

    Bits, high first: 32 number of values, 5 word size - 1, four times 4 a size of a run length - 1; then per run
    1 (a run of equal values), 2 the index of its size, its length - 1 in that size, 8 the value.

    Returns:
        The bytes as numbers 0..255.
    """
    values = mask.ravel()
    starts = np.flatnonzero(np.diff(values, prepend=~values[0]))
    bits = [f"{4 * values.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in BRUSH_SIZES)]
    for start, pixels in zip(starts.tolist(), np.diff(starts, append=values.size).tolist(), strict=True):
        left = 4 * pixels
        while left:
            length = min(left, 1 << BRUSH_SIZES[-1])
            index = next(i for i, size in enumerate(BRUSH_SIZES) if length <= 1 << size)
            bits.append(f"1{index:02b}{length - 1:0{BRUSH_SIZES[index]}b}{8 * str(int(values[start]))}")
            left -= length
    packed: list[int] = np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")).tolist()
    return packed


def _label_map(classes: Sequence[str]) -> bytes:
    """``labelmap.txt``: ``name:r,g,b::`` a line, background first."""
    colours = zip(["background", *classes], voc_palette().tolist(), strict=False)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in colours]
    return _lines(["# label:color_rgb:parts:actions", *lines])


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, EPOCH)
    member.external_attr = 0o644 << 16
    member.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
    archive.writestr(member, content)


def _voc_mask(image_id: str) -> str:
    return f"SegmentationClass/{image_id}.png"


def _voc_list(split: str) -> str:
    return f"ImageSets/Segmentation/{split}.txt"


def _yolo_labels(split: str, image_id: str) -> str:
    return f"labels/{split}/{image_id}.txt"


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
