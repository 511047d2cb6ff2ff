"""A pipeline small enough for tests: untrained backbone, tiny images, one epoch; in this process or in another one."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.commands.session import Request
from wsss.config import DataConfig

ROOT = Path(__file__).resolve().parents[1]
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


def run_arguments(data: DataConfig, workspace: Path, *extra: str, name: str = "tiny") -> list[str]:
    """The command line that asks for the same."""
    wanted = request(data, workspace, *extra, name=name)
    given = [part for setting in wanted.overrides for part in ("--set", setting)]
    return ["run", "--workspace", str(workspace), "--name", name, *given]


def start(
    data: DataConfig,
    workspace: Path,
    *extra: str,
    program: Sequence[str] = (sys.executable, str(ROOT / "run_pipeline.py")),
    **options: Any,
) -> "subprocess.Popen[str]":
    """`run` in a process group of its own, output and errors together."""
    return subprocess.Popen(
        [*program, *run_arguments(data, workspace, *extra)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def hashes(workspace: Path) -> dict[str, str]:
    """sha256 of every artifact by its place."""
    files = sorted((workspace / "artifacts").glob("*/*.h5"))
    return {str(file.relative_to(workspace)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
