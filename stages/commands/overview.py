"""The run's overview.png, from its artifacts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import Dataset, Sample
from data.dataset import overview_samples
from data.images import read_image
from stages import Planned
from wsss.config import Config
from wsss.pictures import OverviewRow, draw_overview
from wsss.resize import resize_maps
from wsss.store.artifacts import Artifact
from wsss.store.files import atomic_path


def write_overview(path: Path, everything: Mapping[str, Planned], config: Config, dataset: Dataset) -> None:
    """Write rows of photo, CAM, pseudo-mask, prediction and truth of training images as a PNG."""
    artifacts = {name: Artifact(item.path) for name, item in everything.items() if item.cached}
    samples = overview_samples(dataset.split(config.data.train_split))
    rows = [_row(sample, artifacts, dataset.classes) for sample in samples]
    with atomic_path(path) as temporary:
        draw_overview(rows, dataset.classes).save(temporary, format="PNG", optimize=True)
    for artifact in artifacts.values():
        artifact.close()


def _row(sample: Sample, artifacts: Mapping[str, Artifact], classes: tuple[str, ...]) -> OverviewRow:
    cams, labels = None, []
    if "cams" in artifacts:
        cams = resize_maps(artifacts["cams"].read(sample.id, "maps"), sample.size)
        labels = [int(label) + 1 for label in artifacts["cams"].read(sample.id, "classes")]
    return OverviewRow(
        caption=f"{sample.id}: {', '.join(classes[tag] for tag in sample.tags) or 'no tags'}",
        image=read_image(sample.image),
        cams=cams,
        cam_labels=labels,
        pseudo=_mask(artifacts, "refine", sample.id, "masks"),
        prediction=_mask(artifacts, "segment", sample.id, "predictions"),
        truth=sample.mask.read() if sample.mask else None,
    )


def _mask(
    artifacts: Mapping[str, Artifact], stage: str, image_id: str, name: str
) -> NDArray[np.uint8] | None:
    artifact = artifacts.get(stage)
    if artifact is None or image_id not in artifact:
        return None
    return np.asarray(artifact.read(image_id, name), dtype=np.uint8)
