"""Kills, damaged files and errors of the machine: a message, and the next run comes to the same bits."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from run_pipeline import main
from tests.pipelines import hashes, run_arguments, start
from tests.trees import make_folder_tree
from wsss.config import DataConfig

REPEATS = settings().max_examples // 100
"""1 in `make test`, more under the profile of `make torture`."""
only_long = pytest.mark.skipif(REPEATS == 1, reason="part of `make torture`")
pytestmark = pytest.mark.slow

STAGES = ("classify", "cams", "refine", "segment")
LEFTOVERS = ("*.tmp-*", "*.parts", "*.checkpoint", "*.lock", "write-test*")
SECONDS = 2.0  # within which a stage is killed
PROGRAM = "import run_pipeline, wsss.train as t; t.CHECKPOINT_SECONDS = 0.2; exit(run_pipeline.main())"
Process = subprocess.Popen[str]
Random = np.random.Generator


@dataclass(frozen=True)
class Whole:
    """A finished run that nobody disturbed: what all others must come to."""

    data: DataConfig
    workspace: Path
    hashes: dict[str, str]

    def start(self, workspace: Path, *extra: str, **options: Any) -> Process:
        program = (sys.executable, "-c", PROGRAM)
        return start(self.data, workspace, "run.workers=1", *extra, program=program, **options)

    def resumes(self, workspace: Path) -> None:
        process = self.start(workspace)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        assert hashes(workspace) == self.hashes
        assert [str(path) for kind in LEFTOVERS for path in workspace.rglob(kind)] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    data = make_folder_tree(folder / "data", n_train=66, n_val=3)  # more than a shard holds
    assert main(run_arguments(data, folder / "ws", "run.workers=1")) == 0
    return Whole(data, folder / "ws", hashes(folder / "ws"))


def wait_for(process: Process, workspace: Path, stage: str) -> None:
    """Until the run begins a stage, or ends."""
    before = events(workspace, stage, "start")
    while process.poll() is None and events(workspace, stage, "start") == before:
        time.sleep(0.01)


def events(workspace: Path, stage: str, event: str) -> int:
    log = workspace / "tiny" / "log.jsonl"
    said = f'"stage": "{stage}", "event": "{event}"'
    return log.read_text().count(said) if log.exists() else 0


@pytest.mark.parametrize("seed", range(REPEATS))
def test_killed_runs_resume_to_the_same_bits(whole: Whole, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    for stage in STAGES if REPEATS > 1 else STAGES[::2]:
        for _ in range(int(random.integers(1, 4)) if REPEATS > 1 else 1):
            process = whole.start(tmp_path / "ws")
            wait_for(process, tmp_path / "ws", stage)
            try:
                process.wait(random.uniform(0, SECONDS))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    whole.resumes(tmp_path / "ws")


@pytest.mark.parametrize(
    ("number", "stop", "stage"),
    [
        (signal.SIGTERM, os.killpg, "classify"),  # workers too, as a terminal does
        pytest.param(signal.SIGINT, os.kill, "refine", marks=only_long),
    ],
)
def test_a_run_that_is_asked_to_stop_says_how_to_resume(
    whole: Whole, tmp_path: Path, number: signal.Signals, stop: Callable[[int, int], None], stage: str
) -> None:
    process = whole.start(tmp_path / "ws", "classify.epochs=9", "segment.epochs=9", "refine.iterations=20")
    wait_for(process, tmp_path / "ws", stage)
    stop(process.pid, number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "the same command" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("seed", range(REPEATS))
def test_damaged_files_are_found_and_computed_again(
    whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    random = np.random.default_rng(seed)
    workspace = Path(shutil.copytree(whole.workspace, tmp_path / "ws"))
    wanted = figures(workspace)
    kinds = ("artifacts/*/*.h5", "artifacts/*/*.json", "scores/*.json", "files-*.json", "tiny/r*.*")
    files = [path for kind in kinds for path in sorted(workspace.glob(kind))]
    for file in files if REPEATS > 1 else files[2::4]:
        how = list(DAMAGES)[int(random.integers(len(DAMAGES)))]
        DAMAGES[how](file, random)
        assert main(run_arguments(whole.data, workspace, "run.workers=1")) == 0, (file, how)
        said = "".join(capsys.readouterr())
        assert hashes(workspace) == whole.hashes, (file, how)
        assert figures(workspace) == wanted, (file, how)
        if file.suffix == ".h5" and how != "delete":
            assert str(file) in said, how
            (kept,) = file.parent.glob(f"{file.name}.damaged-*")
            kept.unlink()


def flip(file: Path, random: Random) -> None:
    content = bytearray(file.read_bytes())
    content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, Random], object]] = {
    "flip": flip,
    "replace": lambda file, _: file.write_bytes(b'{"x": 1}'),
    "cut": lambda file, random: os.truncate(file, int(random.integers(file.stat().st_size))),
    "delete": lambda file, _: file.unlink(),
}


def figures(workspace: Path) -> dict[str, object]:
    """What the report says, without times."""
    report = json.loads((workspace / "tiny" / "report.json").read_bytes())
    changing = ("seconds", "created", "software", "sha256", "page")
    return {key: value for key, value in report.items() if key.rsplit(".", 1)[-1] not in changing}


def message(process: Process) -> str:
    """What a failing run said last: at most three lines, and no traceback."""
    output = process.communicate(timeout=300)[0]
    assert process.returncode in (1, 2), output
    assert "Traceback" not in output
    found = output[output.rindex("error: ") :].strip()
    assert len(found.splitlines()) <= 3
    return found


@only_long
def test_too_few_open_files(whole: Whole, tmp_path: Path) -> None:
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (20, 20))
    assert "ulimit -Hn" in message(whole.start(tmp_path / "ws", preexec_fn=few))
    whole.resumes(tmp_path / "ws")


@only_long
def test_a_full_disk(whole: Whole, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert "full" in message(whole.start(tmp_path))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@only_long
def test_two_runs_at_once_compute_each_stage_once(whole: Whole, tmp_path: Path) -> None:
    both = [whole.start(tmp_path / "ws") for _ in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert [events(tmp_path / "ws", stage, "done") for stage in STAGES] == [1] * 4
    assert hashes(tmp_path / "ws") == whole.hashes
