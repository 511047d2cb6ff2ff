"""Stage `cams` against the published protocol, on the same network, photographs, scales and mirror images.

    python -m benchmarks.cams --images 100

The reference is what the IRN line of repositories does, written plainly: one image and its mirror image per scale,
float32, eager, default memory layout; maps of the tagged classes at stride 4 and at full resolution, float32, in one
.npy per image. The sample's photographs are enlarged to VOC's long side first. Both are timed from reading the
photographs to files on disk, with the same number of threads. Seeds are scored on the maps that each has stored.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.prepared import arguments, enlarged, sample_session
from benchmarks.rows import Row, report
from data import Sample
from data.images import read_image
from stages import Context
from stages.cams import compute
from stages.training import load_multi_exit
from wsss.cams import cam_grid
from wsss.memory import keep_freed_memory
from wsss.metrics import strongest_labels, sweep_counts, sweep_ious
from wsss.metrics.confusion import mean_defined
from wsss.model.multi_exit import PlainNetwork
from wsss.resize import resize_maps
from wsss.store.artifacts import Artifact

SCALES = (1.0, 0.5, 1.5, 2.0)
SPEED, DISK = 4.0, 20.0
POINTS = 0.2
MEAN_DIFFERENCE = 0.005
"""Of maps in [0, 1]: they are stored as float16, and bfloat16 has 8 bits of precision."""
Maps = NDArray[np.floating]


@torch.inference_mode()
def reference(network: PlainNetwork, sample: Sample, out: Path) -> None:
    """One image as published: ``<out>/<n>.npy`` with keys, cam (K, h, w) and high_res (K, H, W), float32."""
    pixels = torch.from_numpy(read_image(sample.image)).permute(2, 0, 1)[None].float() / 255
    size = (pixels.shape[2], pixels.shape[3])
    chosen = list(sample.tags)
    small, full = [], []
    for scale in SCALES:
        shape = [max(1, round(side * scale)) for side in size]
        image = F.interpolate(pixels, shape, mode="bilinear", align_corners=False, antialias=scale < 1)
        maps = network(torch.cat([image, image.flip(3)])).relu()
        both = (maps[:1] + maps[1:].flip(3))[:, chosen]
        small.append(F.interpolate(both, cam_grid(*size), mode="bilinear", align_corners=False)[0])
        full.append(F.interpolate(both, size, mode="bilinear", align_corners=False)[0])
    result: dict[str, Any] = {"keys": np.asarray(chosen)}
    for name, parts in (("cam", small), ("high_res", full)):
        total = torch.stack(parts).sum(0)
        result[name] = (total / total.amax((1, 2), keepdim=True).clamp(min=1e-5)).numpy()
    np.save(out, result)  # type: ignore[arg-type]


def measure(samples: Sequence[Sample], context: Context, labels: int) -> dict[str, float]:
    """Both ways on the same photographs: times, bytes, seeds, distance of the maps."""
    folder = context.output.parent
    device = torch.device("cpu")
    trained = load_multi_exit(context.inputs["classify"], context.config.classify, labels - 1, device)
    network = trained.deploy()  # its BatchNorm not folded, as published
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    started = time.perf_counter()
    for index, sample in enumerate(samples):
        reference(network, sample, folder / f"{index}.npy")
    plain = time.perf_counter() - started
    keep_freed_memory()  # as the command line does
    started = time.perf_counter()
    compute(context)
    ours = time.perf_counter() - started
    files = [folder / f"{index}.npy" for index in range(len(samples))]
    return {
        "images": len(samples),
        "reference_images_per_s": len(samples) / plain,
        "images_per_s": len(samples) / ours,
        "ratio": plain / ours,
        "reference_kib_per_image": sum(file.stat().st_size for file in files) / 1024 / len(samples),
        "kib_per_image": context.output.stat().st_size / 1024 / len(samples),
        **_seeds(samples, files, context.output, labels),
    }


def _seeds(samples: Sequence[Sample], files: Sequence[Path], path: Path, labels: int) -> dict[str, float]:
    """Best seed mIoU of both, and the mean and largest difference of the maps at stride 4."""
    counts: list[Any] = [0, 0]
    artifact = Artifact(path)
    largest, total = 0.0, []
    for sample, file in zip(samples, files, strict=True):
        if sample.mask is None:
            continue
        stored = np.load(file, allow_pickle=True).item()
        truth, own = sample.mask.read(), artifact.read(sample.id, "maps").astype(np.float32)
        classes = np.asarray(sample.tags, np.int64)
        enlarged_own = resize_maps(own, (truth.shape[0], truth.shape[1]))
        for index, maps in enumerate((stored["high_res"], enlarged_own)):
            counts[index] += sweep_counts(truth, *strongest_labels(maps, classes), labels)
        if own.size:
            largest = max(largest, float(np.abs(own - stored["cam"]).max()))
            total.append(float(np.abs(own - stored["cam"]).mean()))
    artifact.close()
    plain, ours = (100 * float(np.nanmax(mean_defined(sweep_ious(count)))) for count in counts)
    return {
        "reference_seed_miou": plain,
        "seed_miou": ours,
        "mean_difference": float(np.mean(total)),
        "largest_difference": largest,
    }


def main() -> None:
    """Read the arguments, measure, print."""
    options = arguments(__doc__)
    session = sample_session(options.workspace.resolve(), "classify")
    split = session.config.data.train_split
    with tempfile.TemporaryDirectory() as folder:
        chosen = session.dataset.split(split).samples[: options.images]
        scored = enlarged(chosen, options.side, Path(folder) / "photographs")
        context = Context(
            config=replace(session.config, cams=replace(session.config.cams, scales=SCALES, flip=True)),
            data=replace(session.dataset.weak(), samples=tuple(replace(each, mask=None) for each in scored)),
            inputs={"classify": session.planned["classify"].path},
            output=Path(folder) / "cams.h5",
            stamp=session.planned["cams"].stamp,
            log=lambda _: None,
        )
        found = measure(scored, context, len(session.dataset.classes) + 1)
    for name, value in found.items():
        print(f"{name:24} {value:.4g}")
    report(rows(found), found, options.json)


def rows(found: dict[str, float]) -> list[Row]:
    """What the figures are held against."""
    disk = found["reference_kib_per_image"] / found["kib_per_image"]
    points = abs(found["seed_miou"] - found["reference_seed_miou"])
    return [
        Row("cams: images/s over the published way's", found["ratio"], "x", SPEED),
        Row("cams: best seed's distance from the published way's", points, "points", POINTS, at_least=False),
        Row(
            "cams: mean difference of the maps", found["mean_difference"], "", MEAN_DIFFERENCE, at_least=False
        ),
        Row("cams: the published way's bytes over ours", disk, "x", DISK),
    ]


if __name__ == "__main__":
    main()
