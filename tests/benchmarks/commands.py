"""Time and memory of whole commands, each in a process of its own."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from stages.commands.session import Session
from tests.benchmarks import Row
from tests.coco_trees import annotation, image_entry, write_instances
from tests.pipelines import ROOT, run_arguments
from tests.reports import synthetic_artifacts
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.store.artifacts import write_artifact

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


SIZE, KINDS, EACH, LINKS = (24, 32), 80, 7, 30_000
"""Of the images; categories, and so kinds of images; annotations of an image; names that a file gets."""


def make_coco(root: Path, images: int) -> DataConfig:
    """COCO 2017's files for so many images, with as many polygons and corners; the images are links to small ones."""
    random = np.random.default_rng(0)
    polygons = [np.round(random.uniform(0, min(SIZE), 52), 2).tolist() for _ in range(EACH)]
    for split, count in (("train2017", images), ("val2017", max(KINDS, images // 24))):
        (root / split).mkdir(parents=True)
        entries, annotations = [], []
        for number in range(count):
            name, source = f"{number:012d}.jpg", root / f"{split}-{number // LINKS}.jpg"
            if number % LINKS == 0:
                Image.fromarray(random.integers(0, 256, (*SIZE, 3), np.uint8)).save(source)
            os.link(source, root / split / name)
            entries.append(image_entry(number, name, SIZE))
            for key, polygon in enumerate(polygons, start=number * EACH):
                annotations.append(annotation(key, number, key % KINDS + 1, [polygon]))
        categories = {number + 1: f"class {number}" for number in range(KINDS)}
        write_instances(root / "annotations" / f"instances_{split}.json", entries, annotations, categories)
    return DataConfig(source="coco", root=str(root), train_split="train2017", val_split="val2017")


def repeat_results(few: Session, many: Session) -> None:
    """Give each image of a large data set the results of the image of its kind in a small one."""
    for name, planned in many.planned.items():
        samples = many.dataset.split("val2017" if name == "segment" else "train2017").samples
        with h5py.File(few.planned[name].path) as file:
            names = [group for group in file if group != "ids"]
            stored = {name: {key: value[()] for key, value in file[name].items()} for name in names}
        fields = [group for group, arrays in stored.items() if "000000" in arrays]
        images = (
            (sample.id, {field: stored[field][f"{index % KINDS:06d}"] for field in fields})
            for index, sample in enumerate(samples)
        )
        groups = {group: arrays for group, arrays in stored.items() if group not in fields}
        write_artifact(planned.path, planned.stamp, groups=groups, images=images)


def unchanged(scale: float) -> list[Row]:
    """`run` on COCO's files where everything is there, beside asking for the status of every file."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        small = synthetic_artifacts(make_coco(few / "coco", KINDS), few / "ws", stages=STAGES)
        data = make_coco(many / "coco", max(KINDS, round(12_000 * scale)))
        repeat_results(small, synthetic_artifacts(data, many / "ws", stages=()))
        command = ("run_pipeline.py", *run_arguments(data, many / "ws", name="synthetic"))
        measured(*command)  # measures and reports
        seconds, mib = min(measured(*command) for _ in range(3))
        names = [str(path) for path in Path(data.root).rglob("0*.jpg")]
        started = time.perf_counter()
        for name in names:
            os.stat(name)  # noqa: PTH116
        plain = time.perf_counter() - started
    return [
        Row(f"unchanged run, {len(names):,} images", seconds, plain, "s", "ours <= 3"),
        Row("its peak memory", mib, measured("-c", "import numpy, h5py")[1], "MiB"),
    ]


PLAIN_REPORT = """
import sys, h5py, numpy as np; from PIL import Image
file, root, counts = h5py.File(sys.argv[1]), sys.argv[2], np.zeros((256, 256), np.int64)
masks = [file[f"labels/{number:06d}"][()] for number in range(len(file["ids"]))]
truths = [np.asarray(Image.open(f"{root}/masks/{name.decode().strip(chr(0))}.png")) for name in file["ids"][()]]
for truth, mask in zip(truths, masks): np.add.at(counts, (truth.ravel(), mask.ravel()), 1)
"""
"""As published scripts do it: masks and pseudo-masks in lists, then one confusion matrix."""


def report(scale: float) -> list[Row]:
    """The first report on synthetic results beside the mIoU of the pseudo-masks alone, in one process."""
    images = max(10, round(1000 * scale))
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder) / "data", Path(folder) / "ws"
        data = make_folder_tree(root, n_train=images * 4 // 5, n_val=images // 5, size=(375, 500))
        session = synthetic_artifacts(data, workspace, stages=STAGES)
        plain, plain_mib = measured("-c", PLAIN_REPORT, session.planned["refine"].path, root)
        command = run_arguments(data, workspace, "run.workers=-1", name="synthetic")
        seconds, mib = measured("run_pipeline.py", *command)
    bar = "ours <= 20" if images == 1000 else ""
    return [
        Row(f"report on {images:,} images of 500 x 375", seconds, plain, "s", bar),
        Row("its peak memory", mib, plain_mib, "MiB"),
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
