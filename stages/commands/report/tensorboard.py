"""The run for TensorBoard: training losses, the report's single figures, curves and images."""

import base64
import importlib.util
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from stages.commands.report import Subject, stage_exhibits
from wsss.errors import UserError
from wsss.store.files import parse_json


def require_tensorboard() -> None:
    """Raise UserError where the package is missing: asked before anything long begins."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: the package tensorboard is not installed; pip install tensorboard")


def write_events(subject: Subject) -> Path:
    """Write ``<run>/tensorboard/`` from scratch and return it."""
    from torch.utils.tensorboard import SummaryWriter

    folder = subject.run.folder / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for tag, value, step in [*_training(subject.run.folder / "log.jsonl"), *_quality(subject)]:
            writer.add_scalar(tag, value, step)
        for stage in subject.measures:
            for index, exhibit in enumerate(stage_exhibits(stage, subject)):
                panels = [base64.b64decode(panel.uri.split(",", 1)[1]) for panel in exhibit.panels]
                pictures = [np.asarray(Image.open(BytesIO(panel)).convert("RGB")) for panel in panels]
                tag = f"{stage}/{exhibit.group}/{exhibit.image_id}"
                writer.add_image(tag, np.concatenate(pictures, axis=1), index, dataformats="HWC")
    return folder


def _training(log: Path) -> Iterator[tuple[str, float, int]]:
    """The loss terms of every epoch that the log holds."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            event = parse_json(line)
        except ValueError:  # cut off when a process was killed
            continue
        if isinstance(event, dict) and "epoch" in event:
            for key, value in event.items():
                if isinstance(value, float):
                    yield f"training/{event['stage']}/{key}", value, event["epoch"]


def _quality(subject: Subject) -> Iterator[tuple[str, float, int]]:
    """Single figures at step 0; curves over the threshold, whose step is its hundredths."""
    for stage, values in subject.measures.items():
        for key, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"quality/{stage}/{key}", float(value), 0
            elif key.startswith("curve."):
                for x, y in zip(values["thresholds"], value, strict=True):
                    if y is not None:
                        yield f"quality/{stage}/{key}", y, round(100 * x)
