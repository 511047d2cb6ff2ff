"""Time and memory of whole commands, each in a process of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import Row
from tests.pipelines import ROOT, run_arguments
from tests.reports import synthetic_artifacts
from tests.trees import make_folder_tree

STAGES = ("classify", "cams", "refine", "segment")
LAUNCHER = """
import os, sys, time
started = time.perf_counter()
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
print(time.perf_counter() - started, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Between this process and a command: a new process counts the memory of the one that it was forked from."""


def measured(*arguments: object) -> tuple[float, float]:
    """Seconds, and peak MiB of the largest process, of Python with these arguments."""
    command = [sys.executable, "-c", LAUNCHER, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds, mib = map(float, done.stdout.splitlines()[-1].split())
    return seconds, mib


def start(_: float) -> list[Row]:
    """`--help` beside Python that does nothing, the best of five."""
    ours = min(measured("run_pipeline.py", "--help")[0] for _ in range(5))
    plain = min(measured("-c", "")[0] for _ in range(5))
    return [Row("--help", ours, plain, "s", "ours <= 0.6")]


PLAIN_REPORT = """
import sys, h5py, numpy as np; from PIL import Image
file, root, counts = h5py.File(sys.argv[1]), sys.argv[2], np.zeros((256, 256), np.int64)
masks = [file[f"labels/{number:06d}"][()] for number in range(len(file["ids"]))]
truths = [np.asarray(Image.open(f"{root}/masks/{name.decode().strip(chr(0))}.png")) for name in file["ids"][()]]
for truth, mask in zip(truths, masks): np.add.at(counts, (truth.ravel(), mask.ravel()), 1)
"""
"""As published scripts do it: masks and pseudo-masks in lists, then one confusion matrix."""


def report(scale: float) -> list[Row]:
    """The first report on synthetic results beside the mIoU of the pseudo-masks alone, in one process; then no news."""
    images = max(10, round(1000 * scale))
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder) / "data", Path(folder) / "ws"
        data = make_folder_tree(root, n_train=images * 4 // 5, n_val=images // 5, size=(375, 500))
        session = synthetic_artifacts(data, workspace, stages=STAGES)
        plain, plain_mib = measured("-c", PLAIN_REPORT, session.planned["refine"].path, root)
        command = run_arguments(data, workspace, "run.workers=-1", name="synthetic")
        seconds, mib = measured("run_pipeline.py", *command)
        again = min(measured("run_pipeline.py", *command)[0] for _ in range(3))
    bar = "ours <= 20" if images == 1000 else ""
    return [
        Row(f"report on {images:,} images of 500 x 375", seconds, plain, "s", bar),
        Row("its peak memory", mib, plain_mib, "MiB"),
        Row("unchanged run", again, seconds, "s", "ours <= 3"),
    ]


def memory(scale: float) -> list[Row]:
    """Peak memory of every command at ten times the images."""
    peaks: list[dict[str, float]] = []
    for images in (round(400 * scale), round(40 * scale)):
        with tempfile.TemporaryDirectory() as folder:
            data = make_folder_tree(Path(folder) / "data", n_train=images, n_val=images // 4, size=(375, 500))
            place = ["--workspace", f"{folder}/ws"]
            settings = [f"data.root={data.root}", "classify.epochs=1", "segment.epochs=1"]
            given = [part for setting in settings for part in ("--set", setting)]
            run = ["--config", "configs/folder.toml", "--name", "bench", *place, *given]
            commands = {name: ["stage", name, *run] for name in STAGES}
            commands |= {"report": ["report", "bench", *place], "status": ["status", *run]}
            peaks.append({name: measured("run_pipeline.py", *each)[1] for name, each in commands.items()})
    many, few = peaks
    what = "peak memory, ten times the images"
    return [Row(f"{what}: {name}", many[name], few[name], "MiB", "ratio <= 1.1") for name in many]
