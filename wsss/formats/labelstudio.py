"""Label Studio: tasks with brush masks as predictions, and the labelling configuration that they need."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from wsss.formats import LabelledImage, regions
from wsss.formats.rle import brush_rle
from wsss.overview import voc_palette

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
        instances: see `wsss.formats.regions`.
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
