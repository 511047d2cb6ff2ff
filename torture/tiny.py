"""The tiny pipeline that is killed and damaged: its data, its command, and what must be equal at the end."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.commands.session import Request
from tests.pipelines import SETTINGS
from tests.trees import make_folder_tree

ROOT = Path(__file__).resolve().parents[1]
LEFTOVERS = ("*.tmp-*", "*.parts", "*.checkpoint", "*.lock", "write-test*")


@dataclass(frozen=True)
class Tiny:
    """A generated data set.

    Attributes:
        root: of the data.
        workers: that load images; the bits do not depend on them.
    """

    root: Path
    workers: int = 1

    @property
    def settings(self) -> list[str]:
        """``section.key=value`` texts: several checkpoints, several shards."""
        own = ["classify.epochs=3", "segment.epochs=3", f"run.workers={self.workers}"]
        return [f"data.root={self.root}", *SETTINGS, *own]

    def request(self, workspace: Path) -> Request:
        """For the program in this process."""
        return Request(config=None, overrides=self.settings, name="tiny", workspace=workspace)

    def start(self, workspace: Path, *extra: str, **options: Any) -> "subprocess.Popen[str]":
        """The command `run` in a process group of its own, its output and errors together."""
        given = [part for setting in self.settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "torture.launch", *extra, "run", "--workspace", str(workspace)]
        return subprocess.Popen(
            [*command, "--name", "tiny", *given],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **options.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )

    def finish(self, workspace: Path, *extra: str, **options: Any) -> tuple[int, str]:
        """Exit status and output of the whole command."""
        process = self.start(workspace, *extra, **options)
        output = process.communicate(timeout=600)[0]
        return process.returncode, output


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed.

    Attributes:
        workspace: where it is.
        hashes: of its artifacts.
        seconds: that each stage took.
    """

    workspace: Path
    hashes: dict[str, str]
    seconds: dict[str, float]


def make_tiny(folder: Path, workers: int = 1) -> Tiny:
    """Write the data."""
    make_folder_tree(folder, n_train=6, n_val=3)
    return Tiny(folder, workers)


def undisturbed(tiny: Tiny, workspace: Path) -> Whole:
    """What all others are held against; computed where it is not there yet."""
    status, output = (0, "") if workspace.exists() else tiny.finish(workspace)
    if status or leftovers(workspace):
        raise RuntimeError(f"the undisturbed run failed or left {leftovers(workspace)}: {output[-600:]}")
    records = {path.parent.name: path for path in (workspace / "artifacts").glob("*/*.json")}
    seconds = {stage: float(json.loads(path.read_bytes())["seconds"]) for stage, path in records.items()}
    return Whole(workspace, hashes(workspace), seconds)


def hashes(workspace: Path) -> dict[str, str]:
    """sha256 of every artifact by its place."""
    files = sorted((workspace / "artifacts").glob("*/*.h5"))
    return {str(file.relative_to(workspace)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def leftovers(workspace: Path) -> list[str]:
    """What a finished run must not leave."""
    return sorted(str(path.relative_to(workspace)) for kind in LEFTOVERS for path in workspace.rglob(kind))
