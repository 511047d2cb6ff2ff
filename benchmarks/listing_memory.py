"""Memory and disk that opening a data set takes, per image: the first part of a run that grows with the data.

    python -m benchmarks.listing_memory [--images 20000 100000]

A folder data set of so many small photographs with three tags each, and one with the files of COCO; each is opened in
a process of its own, once with nothing remembered and once again. What is printed per image is the difference
between the two sizes over the difference in images, so what the program takes anyway does not count.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.listings import COCO_SIZES
from benchmarks.made_up import SIZE, make_data

CLASSES = 20
SETTINGS = {
    "folder": {"source": "folder"},
    "coco": {"source": "coco", "train_split": "train2017", "val_split": "val2017"},
}


def make_folder(root: Path, images: int) -> None:
    """Photographs that are hard links to one (and now and then to a copy: a file system allows only so many)."""
    (root / "images").mkdir(parents=True)
    source = root / "images" / "000000000.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source)
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "tags", "split"))
        for index in range(images):
            photograph = root / "images" / f"{index:09d}.jpg"
            if index and index % 10_000 == 0:
                photograph.write_bytes(source.read_bytes())
                source = photograph
            elif index:
                os.link(source, photograph)
            tags = ";".join(f"class {(index + step) % CLASSES}" for step in (0, 3, 5))
            rows.writerow((photograph.name, tags, "train" if index % 20 else "val"))


def make(kind: str, root: Path, images: int) -> int:
    """Write a data set of about so many images; returns how many."""
    if kind == "folder":
        make_folder(root, images)
        return images
    every = sum(count for count, _ in COCO_SIZES.values())
    make_data(root, images / every)
    return sum(max(80, round(count * images / every)) for count, _ in COCO_SIZES.values())


def opened(kind: str, root: Path, workspace: Path) -> dict[str, float]:
    """Open a data set in this process: bytes resident before, at most, and afterwards, and bytes of what is kept."""
    from data import open_dataset
    from stages.workspace import Workspace
    from wsss.config import DataConfig

    before = _resident("VmRSS")
    place = Workspace(workspace)
    dataset = open_dataset(
        DataConfig(root=str(root), **SETTINGS[kind]),  # type: ignore[arg-type]
        cache=place.file_index(str(root)),
        listing=place.listing(str(root)),
    )
    dataset.weak().digest(masks=True)
    found = {"before": before, "peak": _resident("VmHWM"), "after": _resident("VmRSS")}
    return found | {"kept": sum(path.stat().st_size for path in workspace.glob("files-*"))}


def _resident(what: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"{what}:\s+(\d+) kB", status)[0]) * 1024


def both(kind: str, images: int) -> tuple[int, list[dict[str, float]]]:
    """A data set's number of images, and what its first and its second opening took."""
    with tempfile.TemporaryDirectory() as folder:
        root, workspace = Path(folder) / "data", Path(folder) / "runs"
        number = make(kind, root, images)
        command = [
            sys.executable,
            "-m",
            "benchmarks.listing_memory",
            "--one",
            kind,
            str(root),
            str(workspace),
        ]
        done = [
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(2)
        ]
        return number, [json.loads(text) for text in done]


def main() -> None:
    """Measure both kinds at both sizes and print what one more image takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs=2, default=[20_000, 100_000], metavar="N")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "ROOT", "WORKSPACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, root, workspace = options.one
        print(json.dumps(opened(kind, Path(root), Path(workspace))))
        return
    print("| data | opening | peak, bytes per image | afterwards | kept on disk |\n|---|---|---|---|---|")
    for kind in SETTINGS:
        (few, little), (many, much) = (both(kind, images) for images in options.images)
        for opening, less, more in zip(("first", "again"), little, much, strict=True):
            each = [(more[key] - less[key]) / (many - few) for key in ("peak", "after", "kept")]
            print(
                f"| {kind} | {opening} | " + " | ".join(f"{value:,.0f}" for value in each) + " |", flush=True
            )


if __name__ == "__main__":
    main()
