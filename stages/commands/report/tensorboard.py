"""The run for TensorBoard: training losses, the report's single figures, curves and pictures."""

import base64
import importlib.util
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.commands.report.gallery import Exhibit
from stages.commands.report.report import Subject, exhibits_of
from wsss.errors import UserError
from wsss.store.files import parse_json


def require_tensorboard() -> None:
    """Raise UserError where the package is missing: asked before anything long begins."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: the package tensorboard is not installed; pip install tensorboard")


def write_events(subject: Subject) -> Path:
    """Write ``<run>/tensorboard/`` anew and return it.

    Raises:
        UserError: the package tensorboard is not installed.
    """
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    folder = subject.run.folder / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for tag, value, step in [*_training(subject.run.folder / "log.jsonl"), *_quality(subject)]:
            writer.add_scalar(tag, value, step)
        for stage in subject.measures:
            for index, exhibit in enumerate(exhibits_of(stage, subject)):
                tag = f"{stage}/{exhibit.group}/{exhibit.image_id}"
                writer.add_image(tag, _side_by_side(exhibit), index, dataformats="HWC")
    return folder


def _training(log: Path) -> Iterator[tuple[str, float, int]]:
    """The loss terms of every epoch that the log holds."""
    if not log.exists():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        event = _event(line)
        if "epoch" in event:
            terms = {key: value for key, value in event.items() if isinstance(value, float)}
            yield from (
                (f"training/{event['stage']}/{key}", value, event["epoch"]) for key, value in terms.items()
            )


def _event(line: str) -> dict[str, Any]:
    """What a line of the log says; nothing where a killed process has cut it off."""
    try:
        event = parse_json(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _quality(subject: Subject) -> Iterator[tuple[str, float, int]]:
    """Single figures at step 0; curves over the threshold, whose step is its hundredths."""
    for stage, values in subject.measures.items():
        for key, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"quality/{stage}/{key}", float(value), 0
            elif key.startswith("curve."):
                points = zip(values["thresholds"], value, strict=True)
                yield from ((f"quality/{stage}/{key}", y, round(100 * x)) for x, y in points if y is not None)


def _side_by_side(exhibit: Exhibit) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pictures = [
        Image.open(BytesIO(base64.b64decode(panel.uri.split(",", 1)[1]))).convert("RGB")
        for panel in exhibit.panels
    ]
    return np.concatenate([np.asarray(picture) for picture in pictures], axis=1)
