"""Reading scale: how long opening a large listing takes, and how much memory, beside a plain reference.

    python -m benchmarks.listings [--scale 0.1]

Trees of the published sizes are generated in a temporary folder (empty photographs: a listing opens none): VOC
2012 with train_aug, 10,582 + 1,449 images with an annotation each, and COCO 2017, 118,287 + 5,000 images with
860,001 + 36,781 polygons. Each reading runs in a process of its own. The references do the least that answers
"which images, which tags, which polygons": every XML parsed by ElementTree, the JSON loaded whole and
grouped in dictionaries.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data.sources import VOC_CLASSES, read_listing
from wsss.config import DataConfig

VOC_SIZES = {"train_aug": 10_582, "val": 1_449}
COCO_SIZES = {"train2017": (118_287, 860_001), "val2017": (5_000, 36_781)}
COCO_CATEGORIES = 80


def read_voc(root: Path) -> int:
    """Ours."""
    config = DataConfig(source="voc", root=str(root), train_split="train_aug", val_split="val")
    return len(read_listing(config).entries)


def plain_voc(root: Path) -> int:
    """Every name of the lists, its photograph there, its annotation parsed."""
    found = []
    for split in VOC_SIZES:
        for name in (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split():
            assert (root / "JPEGImages" / f"{name}.jpg").is_file()
            document = ET.parse(root / "Annotations" / f"{name}.xml")
            found.append((name, {thing.findtext("name") for thing in document.iter("object")}))
    return len(found)


def read_coco(root: Path) -> int:
    """Ours: checked, with tags, and with a mask that knows its polygons."""
    config = DataConfig(source="coco", root=str(root), train_split="train2017", val_split="val2017")
    return len(read_listing(config).entries)


def plain_coco(root: Path) -> int:
    """The JSON loaded whole, annotations grouped by image."""
    found = []
    for split in COCO_SIZES:
        content = json.loads((root / "annotations" / f"instances_{split}.json").read_bytes())
        groups = defaultdict(list)
        for annotation in content["annotations"]:
            groups[annotation["image_id"]].append(annotation)
        for image in content["images"]:
            assert (root / split / image["file_name"]).is_file()
            found.append((image, {item["category_id"] for item in groups[image["id"]]}, groups[image["id"]]))
    return len(found)


READINGS: dict[str, Callable[[Path], int]] = {
    "voc": read_voc,
    "voc-plain": plain_voc,
    "coco": read_coco,
    "coco-plain": plain_coco,
}


def make_voc(root: Path, scale: float) -> None:
    """Lists, empty photographs, annotations of two objects with the published elements."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    thing = (
        "\t<object>\n\t\t<name>{}</name>\n\t\t<pose>Left</pose>\n\t\t<truncated>1</truncated>\n\t\t<difficult>0</difficult>\n"
        "\t\t<bndbox>\n\t\t\t<xmin>53</xmin>\n\t\t\t<ymin>87</ymin>\n\t\t\t<xmax>471</xmax>\n\t\t\t<ymax>420</ymax>\n"
        "\t\t</bndbox>\n\t</object>\n"
    )
    number = 0
    for split, size in VOC_SIZES.items():
        names = [f"2008_{number + i:06d}" for i in range(max(20, round(size * scale)))]
        number += len(names)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
            "".join(f"{name}\n" for name in names)
        )
        for i, name in enumerate(names):
            (root / "JPEGImages" / f"{name}.jpg").touch()
            things = thing.format(VOC_CLASSES[i % 20]) + thing.format(VOC_CLASSES[i * 7 % 20])
            (root / "Annotations" / f"{name}.xml").write_text(
                f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{name}.jpg</filename>\n\t<size>\n\t\t<width>500</width>\n"
                f"\t\t<height>375</height>\n\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{things}</annotation>\n"
            )


def make_coco(
    root: Path,
    scale: float,
    *,
    size: tuple[int, int] = (480, 640),
    photograph: Callable[[Path], None] = Path.touch,
) -> None:
    """Annotation files with the published keys, polygons of 20 to 32 corners, and photographs.

    Args:
        root: a new folder.
        scale: share of the published sizes.
        size: ``(H, W)`` of the photographs.
        photograph: writes one; empty files unless given.
    """
    (root / "annotations").mkdir(parents=True)
    for split, (images, annotations) in COCO_SIZES.items():
        (root / split).mkdir()
        number = max(COCO_CATEGORIES, round(images * scale))
        with (root / "annotations" / f"instances_{split}.json").open("w") as file:
            file.write('{"info": {"year": 2017}, "licenses": [], "images": [')
            file.write(", ".join(_image(i, root / split, size, photograph) for i in range(number)))
            file.write('], "annotations": [')
            file.writelines(_annotations(max(number, round(annotations * scale)), number, min(size)))
            categories = [
                {"supercategory": "x", "id": i + 1, "name": f"class {i}"} for i in range(COCO_CATEGORIES)
            ]
            file.write(f'], "categories": {json.dumps(categories)}}}')


def _image(number: int, folder: Path, size: tuple[int, int], photograph: Callable[[Path], None]) -> str:
    name = f"{number:012d}.jpg"
    photograph(folder / name)
    entry = {
        "license": 3,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{folder.name}/{name}",
        "height": size[0],
        "width": size[1],
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": "http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg",
        "id": number,
    }
    return json.dumps(entry)


def _annotations(count: int, images: int, side: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    polygons = [
        json.dumps([np.round(rng.uniform(0, side, 40 + 2 * (i % 13)), 2).tolist()]) for i in range(1000)
    ]
    for i in range(count):
        yield (
            f'{", " if i else ""}{{"segmentation": {polygons[i % 1000]}, "area": 702.1057499999998, "iscrowd": 0, '
            f'"image_id": {i * 7919 % images}, "bbox": [473.07, 395.93, 38.65, 28.67], '
            f'"category_id": {i % COCO_CATEGORIES + 1}, "id": {i}}}'
        )


def measure(name: str, root: Path) -> dict[str, float]:
    """Run one reading in a process of its own: seconds, and peak memory of the process in MiB."""
    command = [sys.executable, "-m", "benchmarks.listings", "--read", name, "--root", str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the published sizes (default: 1)")
    parser.add_argument("--read", choices=READINGS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, cpu = time.perf_counter(), time.process_time()
        entries = READINGS[options.read](options.root)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            json.dumps(
                {
                    "entries": entries,
                    "seconds": seconds,
                    "cpu": cpu,
                    "peak": peak / 1024,
                    "base": before / 1024,
                }
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, make in (("voc", make_voc), ("coco", make_coco)):
            root = Path(folder) / kind
            make(root, options.scale)
            ours, plain = measure(kind, root), measure(f"{kind}-plain", root)
            for name, result in ((kind, ours), (f"{kind}-plain", plain)):
                print(
                    f"{name:11} {result['entries']:7,.0f} entries {result['seconds']:7.2f} s "
                    f"({result['cpu']:.2f} s of CPU)   peak {result['peak']:6,.0f} MiB ({result['base']:.0f} before)"
                )
            print(
                f"{'':11} ours / plain: time {ours['seconds'] / plain['seconds']:.2f}, "
                f"CPU {ours['cpu'] / plain['cpu']:.2f}, memory {ours['peak'] / plain['peak']:.2f}"
            )


if __name__ == "__main__":
    main()
