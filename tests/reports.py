"""Runs with synthetic results, for tests of what is reported about them: nothing is trained."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from stages.cams import label_free
from stages.commands.report import refresh_report
from stages.commands.session import Session, open_session
from stages.refine import seed_threshold
from tests.pipelines import request
from wsss.cams import cam_grid
from wsss.config import DataConfig
from wsss.metrics.indicators import colour_information_curve
from wsss.metrics.sweep import THRESHOLDS
from wsss.resize import resize_image, resize_maps
from wsss.store.artifacts import Arrays, Artifact, Groups, write_artifact

EXITS = {3: 6, 4: 2}
"""Blocks with a shallower exit, and by how many pixels more it is off."""


def synthetic_run(data: DataConfig, workspace: Path, *extra: str, **options: Any) -> Session:
    """The run of `synthetic_artifacts`, with its report."""
    session = synthetic_artifacts(data, workspace, *extra, **options)
    refresh_report(session)
    return session


def synthetic_artifacts(
    data: DataConfig,
    workspace: Path,
    *extra: str,
    name: str = "synthetic",
    shift: int = 3,
    stages: tuple[str, ...] = ("cams", "refine", "segment"),
) -> Session:
    """A run whose masks are the ground truth moved ``shift`` pixels to the right, or noise where there is none."""
    session = open_session(request(data, workspace, *extra, name=name))
    write_synthetic(session, shift, stages)
    return session


def write_synthetic(session: Session, shift: int, stages: tuple[str, ...]) -> None:
    """Artifacts of these stages, where the session's plan has them."""
    train = session.dataset.split(session.config.data.train_split).samples
    val = session.dataset.split(session.config.data.val_split).samples
    classes = len(session.dataset.classes)
    make: dict[str, Callable[[], Iterable[tuple[str, Arrays]]]] = {
        "classify": list,
        "cams": lambda: _cams(train, classes, shift),
        "refine": lambda: _masks(train, shift),
        "segment": lambda: _predictions(val, shift),
    }
    groups: dict[str, Groups] = {
        "segment": {"predicting_exits": {"blocks": np.asarray(sorted(EXITS), np.uint8)}}
    }
    for stage in stages:
        planned = session.planned[stage]
        images = list(make[stage]())
        if stage == "cams":
            groups[stage] = label_free(arrays["colour_information"] for _, arrays in images)
        if stage == "refine":
            cams, background = session.planned["cams"].path, session.config.refine.background
            if cams.exists():
                with closing(Artifact(cams)) as seed:
                    background = seed_threshold(session.config.refine, seed)
            groups[stage] = {"seed": {"threshold": np.asarray(background)}}
        write_artifact(planned.path, planned.stamp, groups=groups.get(stage), images=images)


def moved(sample: Sample, shift: int) -> NDArray[np.uint8]:
    """The labels that a synthetic run gives an image."""
    if sample.mask is None:
        noise = np.random.default_rng(len(sample.id)).random((5, 7))
        label = sample.tags[0] + 1 if sample.tags else 0
        return np.where(resize_maps(noise[None], sample.size)[0] > 0.5, label, 0).astype(np.uint8)
    mask = np.roll(sample.mask.read(), shift, axis=1)
    mask[mask == 255] = 0
    return mask


def _cams(samples: Sequence[Sample], classes: int, shift: int) -> Iterator[tuple[str, Arrays]]:
    for sample in samples:
        grid = cam_grid(*sample.size)
        labels = moved(sample, shift)
        maps = np.stack(
            [resize_maps((labels == tag + 1)[None].astype(np.float32), grid)[0] for tag in sample.tags]
            or [np.zeros(grid, np.float32)]
        )[: len(sample.tags)].astype(np.float16)
        confidence = np.full(classes, 0.1)
        confidence[list(sample.tags)] = 0.9
        small = resize_image(read_image(sample.image), grid)
        yield (
            sample.id,
            {
                "maps": maps,
                "classes": np.asarray(sample.tags, np.uint8),
                "confidence": confidence.astype(np.float16),
                "agreement": np.tile(np.linspace(1, 0.5, len(THRESHOLDS)), (2, 1)).astype(np.float16),
                "colour_information": colour_information_curve(small, maps).astype(np.float16),
            },
        )


def _masks(samples: Sequence[Sample], shift: int) -> Iterator[tuple[str, Arrays]]:
    for sample in samples:
        labels = moved(sample, shift)
        masks = labels.copy()
        masks[0] = 255
        yield sample.id, {"masks": masks, "labels": labels}


def _predictions(samples: Sequence[Sample], shift: int) -> Iterator[tuple[str, Arrays]]:
    for sample in samples:
        each = [moved(sample, shift + more) for more in EXITS.values()]
        yield sample.id, {"predictions": moved(sample, shift), "exit_predictions": np.stack(each)}
