"""Stage `refine` with one process and with two, against the published protocol, from the same CAMs.

    python -m benchmarks.refine --images 200

The reference is what the IRN line of repositories does, written plainly, in one process: two CRFs an image on labels,
one from a high background score (confident foreground, 0.30), one from a low one (confident background, 0.05); what
only the second calls foreground is 255. These pixels count as background in its score, since leaving them out would
flatter it; their share stands beside it.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.prepared import arguments, enlarged, sample_session
from benchmarks.rows import Row, report
from data import Sample
from data.images import read_image
from stages import Context
from stages.commands.session import Session
from stages.refine import compute
from wsss.crf import PRESETS, dense_crf, probabilities
from wsss.metrics import confusion_counts, mask_scores
from wsss.resize import resize_maps
from wsss.store.artifacts import Artifact

FOREGROUND, BACKGROUND = 0.30, 0.05
IGNORE = 255
TWO_PROCESSES, TWO_CRFS = 1.8, 2.0
UInt8 = NDArray[np.uint8]


def reference(sample: Sample, cams: Artifact) -> UInt8:
    """(H, W) labels with 255, as published: two CRFs on hard labels."""
    image = read_image(sample.image)
    maps = resize_maps(cams.read(sample.id, "maps"), (image.shape[0], image.shape[1]))
    labels = np.concatenate([[0], cams.read(sample.id, "classes").astype(np.int64) + 1])
    found = []
    for score in (FOREGROUND, BACKGROUND):
        posterior = dense_crf(image, probabilities(maps, score), PRESETS["irn"], iterations=10)
        found.append(labels[posterior.argmax(0)])
    sure, loose = found
    mask = sure.astype(np.uint8)
    mask[sure == 0] = IGNORE
    mask[(sure == 0) & (loose == 0)] = 0
    return np.asarray(mask)


def measure(session: Session, images: int, side: int, folder: Path) -> dict[str, float]:
    """Times and scores of all three on the first training photographs, enlarged."""
    split = session.config.data.train_split
    samples = enlarged(session.dataset.split(split).samples[:images], side, folder / "photographs")
    cams = Artifact(session.planned["cams"].path)
    started = time.perf_counter()
    plain = [reference(sample, cams) for sample in samples]
    seconds = {"reference": time.perf_counter() - started}
    for workers in (1, 2):
        context = _context(session, samples, workers, folder / f"{workers}.h5")
        compute(_context(session, samples[:2], workers, folder / f"warm-{workers}.h5"))
        started = time.perf_counter()
        compute(context)
        seconds[f"{workers}"] = time.perf_counter() - started
    artifact = Artifact(folder / "1.h5")
    own = [artifact.read(sample.id, "labels") for sample in samples]
    labels = len(session.dataset.classes) + 1
    return {
        "images": images,
        "reference_images_per_s": images / seconds["reference"],
        "images_per_s_1_process": images / seconds["1"],
        "images_per_s_2_processes": images / seconds["2"],
        "two_processes_over_one": seconds["1"] / seconds["2"],
        "one_process_over_reference": seconds["reference"] / seconds["1"],
        "reference_miou": _miou(samples, [np.where(mask == IGNORE, 0, mask) for mask in plain], labels),
        "reference_unsure_share": float(np.mean([(mask == IGNORE).mean() for mask in plain])),
        "miou": _miou(samples, own, labels),
    }


def _context(session: Session, samples: Sequence[Sample], workers: int, output: Path) -> Context:
    weak = session.dataset.weak()
    return Context(
        config=replace(session.config, run=replace(session.config.run, workers=workers)),
        data=replace(weak, samples=tuple(replace(sample, mask=None) for sample in samples)),
        inputs={"cams": session.planned["cams"].path},
        output=output,
        stamp=session.planned["refine"].stamp,
        log=lambda _: None,
    )


def _miou(samples: Sequence[Sample], masks: Sequence[NDArray[np.generic]], labels: int) -> float:
    counts = sum(
        confusion_counts(sample.mask.read(), np.asarray(mask, np.uint8), labels)
        for sample, mask in zip(samples, masks, strict=True)
        if sample.mask is not None
    )
    return 100 * float(mask_scores(np.asarray(counts)).miou)


def main() -> None:
    """Read the arguments, measure, print."""
    options = arguments(__doc__)
    session = sample_session(options.workspace.resolve(), "cams")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(session, options.images, options.side, Path(folder))
    for name, value in found.items():
        print(f"{name:28} {value:.4g}")
    report(rows(found), found, options.json)


def rows(found: dict[str, float]) -> list[Row]:
    """What the figures are held against."""
    gain = found["miou"] - found["reference_miou"]
    return [
        Row("refine: two processes over one", found["two_processes_over_one"], "x", TWO_PROCESSES),
        Row("refine: one process over two CRFs an image", found["one_process_over_reference"], "x", TWO_CRFS),
        Row("refine: mIoU above the two CRFs'", gain, "points", 0.0),
    ]


if __name__ == "__main__":
    main()
