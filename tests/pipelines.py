"""A pipeline small enough for tests: untrained backbone, tiny pictures, one epoch."""

from pathlib import Path

from stages.commands.session import Request
from wsss.config import DataConfig

SETTINGS = [
    "classify.backbone=tf_efficientnet_lite0",
    "classify.weights=none",
    "classify.long_side=[40, 56]",
    "classify.crop=32",
    "classify.epochs=1",
    "classify.batch=3",
    "classify.exit_channels=8",
    "classify.sr_start=0.0",
    "cams.scales=[1.0, 0.5]",
    "refine.iterations=2",
    "segment.backbone=tf_efficientnet_lite0",
    "segment.weights=none",
    "segment.output_stride=16",
    "segment.head=light",
    "segment.head_channels=16",
    "segment.exit_channels=8",
    "segment.long_side=[40, 56]",
    "segment.crop=32",
    "segment.epochs=1",
    "segment.batch=3",
    "segment.sr_start=0.0",
    "run.workers=0",
    "run.device=cpu",
]
"""Overrides that make every stage take about a second."""


def request(data: DataConfig, workspace: Path, *extra: str, name: str = "tiny") -> Request:
    """What the command line would pass on for a generated data set."""
    place = [
        f"data.root={data.root}",
        f"data.source={data.source}",
        f"data.train_split={data.train_split}",
        f"data.val_split={data.val_split}",
        *([f"data.classes={list(data.classes)}"] if data.classes else []),
    ]
    return Request(config=None, overrides=[*place, *SETTINGS, *extra], name=name, workspace=workspace)
