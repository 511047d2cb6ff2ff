"""Memory and time of a report as the number of images grows.

    python -m benchmarks.report --images 500 5000

Every size is measured in processes of its own on made-up photographs of 500 x 375 with made-up results: the report of a
whole run (seed, pseudo-masks, predictions, pictures), and beside it a plain reference as published scripts do it: all
masks and predictions of the pseudo-masks read into lists, then one confusion matrix, mIoU alone, one process.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rows import Row, report

SIZE = (375, 500)
DISTINCT = 40
BAR_IMAGES, SECONDS = 1000, 20.0
CLASSES = tuple(f"class {index}" for index in range(20))


def make_data(root: Path, images: int) -> None:
    """A folder data set: few distinct photographs and masks under many names (hard links)."""
    from tests.trees import make_scene, write_csv, write_png

    random = np.random.default_rng(0)
    rows, tags = [], []
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(images):
        picture, mask = root / f"images/{index:06d}.jpg", root / f"masks/{index:06d}.png"
        if index < DISTINCT:
            labels = sorted({index % 20 + 1, (index // 2) % 20 + 1})
            pixels, truth = make_scene(labels, SIZE, random)
            Image.fromarray(pixels).save(picture, quality=90)
            write_png(mask, truth)
            tags.append(";".join(CLASSES[label - 1] for label in labels))
        else:
            os.link(root / f"images/{index % DISTINCT:06d}.jpg", picture)
            os.link(root / f"masks/{index % DISTINCT:06d}.png", mask)
        rows.append((picture.name, tags[index % DISTINCT], "val" if index % 5 == 0 else "train"))
    write_csv(root / "labels.csv", rows)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")


def make_run(root: Path, workspace: Path) -> None:
    """Artifacts of a run on that data, without its report."""
    from tests.reports import made_up_artifacts
    from wsss.config import DataConfig

    made_up_artifacts(DataConfig(source="folder", root=str(root)), workspace, name="run")


def measure(kind: str, root: Path, workspace: Path) -> dict[str, float]:
    """Seconds and peak resident memory in MiB of this process and of its largest helper."""
    from stages.commands.session import open_session, refresh_report
    from tests.pipelines import request
    from wsss.config import DataConfig

    session = open_session(
        request(DataConfig(source="folder", root=str(root)), workspace, "run.workers=-1", name="run")
    )
    before = _peak()
    started = time.perf_counter()
    if kind == "report":
        refresh_report(session)
    else:
        _reference(session.planned["refine"].path, root)
    return {
        "seconds": time.perf_counter() - started,
        "opening_mib": before,
        "self_mib": _peak(),
        "helper_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def _reference(path: Path, root: Path) -> None:
    from wsss.store.artifacts import Artifact

    artifact = Artifact(path)
    truths = [np.asarray(Image.open(root / "masks" / f"{image_id}.png")) for image_id in artifact.ids]
    masks = [artifact.read(image_id, "labels") for image_id in artifact.ids]
    matrix = np.zeros((21, 21), np.int64)
    for truth, mask in zip(truths, masks, strict=True):
        np.add.at(matrix, (truth.ravel(), mask.ravel()), 1)
    right = np.diagonal(matrix)
    print(f"reference mIoU {np.mean(right / (matrix.sum(0) + matrix.sum(1) - right)):.4f}", file=sys.stderr)


def _peak() -> float:
    """Peak resident MiB of this process alone; getrusage would also count what its parent had at the fork."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--one", nargs=3, metavar=("KIND", "ROOT", "WORKSPACE"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    if options.one:
        kind, root, workspace = options.one
        print(json.dumps(measure(kind, Path(root), Path(workspace))))
        return
    print("| images | what | seconds | img/s | memory, MiB | of it before measuring | largest helper, MiB |")
    print("|---|---|---|---|---|---|---|")
    found = {images: _both(images) for images in options.images}
    rows = []
    for images, kinds in found.items():
        ours, plain = kinds["report"], kinds["reference"]
        bar = SECONDS if images == BAR_IMAGES else None
        rows += [
            Row(f"report on {images:,} images of 500x375", ours["seconds"], "s", bar, at_least=False),
            Row("its memory over the reference's", ours["self_mib"] / plain["self_mib"], "x"),
        ]
    report(rows, {str(images): kinds for images, kinds in found.items()}, options.json)


def _both(images: int) -> dict[str, dict[str, float]]:
    """Figures of the report and of the reference, each from a process of its own, printed as they come."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder) / "data", Path(folder) / "ws"
        make_data(root, images)
        make_run(root, workspace)
        for kind in ("report", "reference"):
            command = [sys.executable, "-m", "benchmarks.report", "--one", kind, str(root), str(workspace)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            one = found[kind] = json.loads(done.stdout)
            print(
                f"| {images} | {kind} | {one['seconds']:.1f} | {images / one['seconds']:.1f} | "
                f"{one['self_mib']:.0f} | {one['opening_mib']:.0f} | {one['helper_mib']:.0f} |",
                flush=True,
            )
    return found


if __name__ == "__main__":
    main()
