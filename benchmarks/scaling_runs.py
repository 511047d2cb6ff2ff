"""Small whole runs for `benchmarks.scaling`: made-up photographs, the real command line, what each command took."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.cost_model import COMMANDS, Workload

ROOT = Path(__file__).parent.parent
DISTINCT = 40
EVERY = 0.2
"""Seconds between looks at the processes and the disk."""
MIB = 2**20
_LAUNCHER = """
import json, os, sys, time
started = time.perf_counter()
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[2:]], os.environ)
_, status, usage = os.wait4(pid, 0)
figures = time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
with open(sys.argv[1], "w") as file:
    json.dump(figures, file)
sys.exit(status != 0)
"""
"""Started between this process and the command: a new process counts the memory of the one that it was forked from."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a command took.

    Attributes:
        seconds: wall time.
        cpu: seconds of CPU, helper processes included.
        peak: bytes resident in the largest process, exactly.
        peak_sum: bytes resident in all its processes together, as often as looked; what they share counts for each.
        disk: largest size of the workspace while it ran, shards and what is not yet merged included.
        bytes: what it left: the artifact; measures and report; the cache of checked files.
    """

    seconds: float
    cpu: float
    peak: float
    peak_sum: float
    disk: float
    bytes: float


def make_data(root: Path, workload: Workload) -> None:
    """A folder data set: few distinct photographs and masks under many names (hard links); the last ones validate."""
    from tests.trees import make_scene, write_csv, write_png

    random = np.random.default_rng(0)
    height = round((workload.megapixels * 1e6 * 3 / 4) ** 0.5)
    names = [f"class {index}" for index in range(workload.classes)]
    rows = []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(workload.images):
        kind = index % DISTINCT
        tags = sorted(
            {(kind * int(workload.tags) + each) % workload.classes for each in range(int(workload.tags))}
        )
        picture, mask = root / f"images/{index:06d}.jpg", root / f"masks/{index:06d}.png"
        if index < DISTINCT:
            pixels, truth = make_scene([tag + 1 for tag in tags], (height, round(height * 4 / 3)), random)
            Image.fromarray(pixels).save(picture, quality=90)
            write_png(mask, truth)
        else:
            os.link(root / f"images/{kind:06d}.jpg", picture)
            os.link(root / f"masks/{kind:06d}.png", mask)
        rows.append(
            (picture.name, ";".join(names[tag] for tag in tags), "train" if index < workload.train else "val")
        )
    write_csv(root / "labels.csv", rows)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def whole_run(workload: Workload, settings: Sequence[str]) -> dict[str, Usage]:
    """Every command on new data in a new workspace, by name; ``settings`` are for ``--set``."""
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder) / "data", Path(folder) / "runs"
        make_data(root, workload)
        place = ["--workspace", str(workspace)]
        given = ["--config", str(ROOT / "configs" / "folder.toml"), "--name", "scaling", *place]
        for setting in (*_settings(workload), f"data.root={root}", *settings):
            given += ["--set", setting]
        return {command: _measured(command, given, place, workspace) for command in COMMANDS}


def _settings(workload: Workload) -> list[str]:
    return [
        *(
            f"{stage}.epochs={epochs}"
            for stage, epochs in zip(("classify", "segment"), workload.epochs, strict=True)
        ),
        *(
            f"{stage}.crop={crop}"
            for stage, crop in zip(("classify", "segment"), workload.crops, strict=True)
        ),
        *(f"{stage}.batch={workload.batch}" for stage in ("classify", "segment")),
        f"cams.scales={list(workload.scales)}",
        f"refine.iterations={workload.iterations}",
    ]


def _measured(command: str, given: list[str], place: list[str], workspace: Path) -> Usage:
    kept = workspace / "artifacts" / command
    if command == "report":
        shutil.rmtree(workspace / "scores")
        for path in (workspace / "scaling").glob("report.*"):
            path.unlink()
        seconds, cpu, peak, peaks = measured_command(["report", "scaling", *place], workspace)
        left = size_of(workspace / "scores") + sum(
            path.stat().st_size for path in (workspace / "scaling").glob("report.*")
        )
    elif command == "status":
        seconds, cpu, peak, peaks = measured_command(["status", *given], workspace)
        left = sum(path.stat().st_size for path in workspace.glob("files-*"))
    else:
        seconds, cpu, peak, peaks = measured_command(["stage", command, *given], workspace)
        left = size_of(kept)
    return Usage(seconds=seconds, cpu=cpu, peak=peak, peak_sum=peaks[0], disk=peaks[1], bytes=left)


def measured_command(
    arguments: Sequence[str], workspace: Path
) -> tuple[float, float, float, tuple[float, float]]:
    """Run the pipeline's command line.

    Returns:
        Seconds, seconds of CPU, peak bytes of the largest process, and peak bytes (of all processes together, of the
        workspace on disk).

    Raises:
        SystemExit: it failed; its messages are shown.
    """
    with tempfile.TemporaryFile("w+") as words, tempfile.NamedTemporaryFile("r") as figures:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, figures.name, str(ROOT / "run_pipeline.py"), *arguments],
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # by which its helpers are known
        )
        watch = _Watch(process.pid, workspace)
        watch.start()
        status = process.wait()
        watch.stop()
        if status:
            words.seek(0)
            raise SystemExit(f"{' '.join(arguments)}:\n{words.read()}")
        seconds, cpu, peak = json.load(figures)
    return seconds, cpu, peak, (watch.memory, watch.disk)


class _Watch(threading.Thread):
    """Looks now and then at the memory of all processes of a session and at the size of a folder."""

    def __init__(self, session: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self.session, self.folder = session, folder
        self.memory = self.disk = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(EVERY):
            self.memory = max(self.memory, resident(self.session))
            self.disk = max(self.disk, size_of(self.folder))

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self.join()


def resident(session: int) -> float:
    """Bytes resident in the processes of a session, added up."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session and stat.parent.name != str(session):  # not the launcher
            total += int(fields[21]) * page
    return total


def size_of(folder: Path) -> float:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it has been moved
            continue
    return total
