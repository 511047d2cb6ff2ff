"""CVAT's "Segmentation mask 1.1": a zip that its import takes as it is.

``labelmap.txt``, ``ImageSets/Segmentation/default.txt``, and per image ``SegmentationClass/<id>.png`` (classes) and
``SegmentationObject/<id>.png`` (numbers of the shapes that CVAT makes). The importer takes a colour for what
``labelmap.txt`` calls it and fails on others, and every label must be one of the CVAT task's; so unsure
pixels are written as background: no shape covers them.
"""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from wsss.errors import UserError, listed
from wsss.formats import IGNORE, MAX_OBJECTS, LabelledImage, regions
from wsss.overview import voc_palette
from wsss.palette_png import encode_mask

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
