"""The stages `cams` and `refine` against the published protocol (the IRN line), on the same network and images.

The sample's images are enlarged to VOC's 500 pixels. Ours is timed by the program itself, the reference on 100 images.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels

from data import Sample, open_dataset
from data.images import read_image
from stages.training import load_multi_exit
from tests.benchmarks import Row
from tests.pipelines import ROOT
from wsss import IGNORE
from wsss.config import DataConfig, load_config
from wsss.metrics.confusion import confusion_counts, mask_scores
from wsss.model.multi_exit import PlainNetwork
from wsss.resize import resize_maps
from wsss.runtime.device import choose_device, choose_precision
from wsss.store.artifacts import Artifact

SAMPLE = load_config(ROOT / "configs" / "sample.toml", [])
SIDE, IMAGES, SCALES = 500, 100, (1.0, 0.5, 1.5, 2.0)
FOREGROUND, BACKGROUND = 0.30, 0.05
UInt8 = NDArray[np.uint8]


def enlarged_sample(scale: float) -> tuple[Path, Sequence[Sample]]:
    """The sample with a long side of 500 pixels times ``scale``, kept in runs/; its first training images."""
    sample, root = ROOT / "data" / "sample", ROOT / "runs" / f"benchmark-{scale:g}"
    for folder, method in (("images", Image.Resampling.BICUBIC), ("masks", Image.Resampling.NEAREST)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for path in (sample / folder).iterdir():
            if not (root / folder / path.name).exists():
                with Image.open(path) as image:
                    size = [round(side * scale * SIDE / max(image.size)) for side in image.size]
                    image.resize((size[0], size[1]), method).save(root / folder / path.name)
    for name in ("labels.csv", "classes.txt"):
        shutil.copy(sample / name, root)
    return root, open_dataset(DataConfig(source="folder", root=str(root))).split("train").samples[:IMAGES]


def stage(name: str, root: Path, *options: str) -> tuple[Path, float]:
    """Compute a stage with the published scales and CRF: its artifact, and the seconds that an image took."""
    settings = [f"data.root={root}", f"cams.scales={list(SCALES)}", "cams.flip=true", "refine.preset=irn"]
    given = [part for setting in settings for part in ("--set", setting)]
    command = f"run_pipeline.py stage {name} --config configs/sample.toml --name bench --workspace".split()
    subprocess.run([sys.executable, *command, str(root / "ws"), *given, *options], cwd=ROOT, check=True)
    record = json.loads((root / "ws" / "bench" / "run.json").read_bytes())["stages"][name]
    path = root / "ws" / "artifacts" / name / f"{record['fingerprint']}.h5"
    return path, record["computed"]["seconds"] / max(1, len(Artifact(path).ids))


@torch.inference_mode()
def published_cams(network: PlainNetwork, sample: Sample, out: Path) -> None:
    """An image and its mirror image per scale, float32; maps at stride 4 and of full size, float32, in one .npy."""
    images = torch.from_numpy(read_image(sample.image)).permute(2, 0, 1)[None].float() / 255
    H, W = images.shape[2:]
    sizes = {"cam": (-(-H // 4), -(-W // 4)), "high_res": (H, W)}
    totals = {name: torch.zeros(len(sample.tags), *size) for name, size in sizes.items()}
    for scale in SCALES:
        shape = [round(H * scale), round(W * scale)]
        view = F.interpolate(images, shape, mode="bilinear", align_corners=False, antialias=scale < 1)
        maps = network(torch.cat([view, view.flip(3)])).relu()
        both = (maps[:1] + maps[1:].flip(3))[:, list(sample.tags)]
        for name, size in sizes.items():
            totals[name] += F.interpolate(both, size, mode="bilinear", align_corners=False)[0]
    peaks = {name: maps.amax((1, 2), keepdim=True).clamp(min=1e-5) for name, maps in totals.items()}
    np.save(out, {name: (maps / peaks[name]).numpy() for name, maps in totals.items()})  # type: ignore[arg-type]


def cams(scale: float) -> list[Row]:
    """Images per second, and the distance of the maps."""
    root, samples = enlarged_sample(scale)
    classifier, _ = stage("classify", root)
    path, ours = stage("cams", root, "--force")
    artifact, distances, sizes, plain = Artifact(path), [], [], 0.0
    trained = load_multi_exit(classifier, SAMPLE.classify, len(artifact.classes), torch.device("cpu"))
    network = trained.deploy().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    file = root / "ws" / "published.npy"
    for sample in samples:
        started = time.perf_counter()
        published_cams(network, sample, file)
        plain += time.perf_counter() - started
        wanted = np.load(file, allow_pickle=True).item()["cam"]
        distances.append(float(np.abs(artifact.read(sample.id, "maps") - wanted).mean()))
        sizes.append(file.stat().st_size / 1024)
    half = choose_precision(SAMPLE.run, choose_device(SAMPLE.run.device)) != torch.float32
    return [
        Row("cams", 1 / ours, len(samples) / plain, "images/s", "ratio >= 4" if half else "ratio >= 2.5"),
        Row("cams: file", path.stat().st_size / 1024 / len(artifact.ids), float(np.mean(sizes)), "KiB/image"),
        Row("cams: mean difference of the maps", float(np.mean(distances)), 1.0, "", "ours <= 0.005"),
    ]


def published_mask(image: UInt8, maps: NDArray[np.float32], keys: NDArray[np.int64]) -> UInt8:
    """Two CRFs on hard labels; what is foreground with the lower score alone, published as 255, stays background."""
    found = []
    for score in (FOREGROUND, BACKGROUND):
        seed = np.concatenate([np.full((1, *image.shape[:2]), score), maps]).argmax(0)
        crf = DenseCRF2D(image.shape[1], image.shape[0], len(keys))
        crf.setUnaryEnergy(unary_from_labels(seed, len(keys), gt_prob=0.7, zero_unsure=False))
        crf.addPairwiseGaussian(sxy=3, compat=3)
        crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=image.copy(), compat=10)
        found.append(keys[np.argmax(crf.inference(10), axis=0).reshape(seed.shape)])
    return np.asarray(found[0], np.uint8)


def refine(scale: float) -> list[Row]:
    """Images per second in one process and in one per core; mIoU of the labels."""
    root, samples = enlarged_sample(scale)
    stage("classify", root)
    stored, plain = Artifact(stage("cams", root)[0]), 0.0
    _, all_cores = stage("refine", root, "--force", "--set", "run.workers=-1")
    path, one = stage("refine", root, "--force", "--set", "run.workers=1")
    refined, labels, counts = Artifact(path), len(stored.classes) + 1, []
    for sample in samples:
        started = time.perf_counter()
        image, keys = read_image(sample.image), np.array([0, *(tag + 1 for tag in sample.tags)])
        maps = resize_maps(stored.read(sample.id, "maps"), (image.shape[0], image.shape[1]))
        mask = published_mask(image, maps, keys)
        plain += time.perf_counter() - started
        truth = np.full_like(mask, IGNORE) if sample.mask is None else sample.mask.read()
        both = refined.read(sample.id, "labels"), mask
        counts.append([confusion_counts(truth, each, labels) for each in both])
    ours, theirs = (100 * mask_scores(total).miou for total in np.sum(counts, axis=0))
    rate = len(samples) / plain
    return [
        Row("refine, one process", 1 / one, rate, "images/s", "ratio >= 2"),
        Row("refine, a process per core", 1 / all_cores, rate, "images/s"),
        Row("refine: mIoU of the masks", ours, theirs, "", "ratio >= 1"),
    ]
