"""A finished run with made-up results, for timing what comes after the computing: nothing is trained.

Every photograph is the same small file under another name, and results are few: making them up costs little.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.listings import COCO_CATEGORIES, make_coco
from data import Sample
from stages import Planned
from stages.commands.report.measure import measured_artifact, place_of, scored_images
from stages.commands.session import Request, Session, bring_overview_up_to_date, open_session, refresh_report
from wsss.metrics import THRESHOLDS
from wsss.store.artifacts import Arrays, write_artifact
from wsss.store.files import write_sealed_json

SIZE = (24, 32)
GRID = (6, 8)
MEASURED = 64
NAME = "made-up"


def make_data(root: Path, scale: float) -> None:
    """COCO 2017's files at this share of their size; photographs of 24 x 32 that are hard links to one."""
    root.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "one.jpg")
    _many_links(root, scale)


def finish_run(root: Path, workspace: Path) -> Session:
    """Made-up artifacts of all four stages, measured and reported on."""
    settings = [
        f"data.root={root}",
        "data.source=coco",
        "data.train_split=train2017",
        "data.val_split=val2017",
        "classify.weights=none",
        "segment.weights=none",
        "run.workers=-1",
    ]
    session = open_session(Request(None, settings, NAME, workspace))
    session.run.announce(session.planned)
    train = session.dataset.split("train2017").samples
    val = session.dataset.split("val2017").samples
    make: dict[str, Callable[[], Iterable[tuple[str, Arrays]]]] = {
        "classify": list,
        "cams": lambda: _cams(train),
        "refine": lambda: _masks(train),
        "segment": lambda: _predictions(val),
    }
    groups = {
        "cams": {"label_free": {"threshold": np.asarray(0.3)}},
        "refine": {"seed": {"threshold": np.asarray(0.3)}},
        "segment": {"predicting_exits": {"blocks": np.zeros(0, np.uint8)}},
    }
    for name, planned in session.planned.items():
        write_artifact(planned.path, planned.stamp, groups=groups.get(name), images=make[name]())
        if name != "classify":
            _measure_some(session, planned)
    refresh_report(session)
    bring_overview_up_to_date(session, ())
    return session


def _measure_some(session: Session, planned: Planned) -> None:
    """Measures of a few images, repeated for all: measuring as many would take an hour."""
    scored = scored_images(planned.name, session.config, session.dataset)
    few = scored.samples[:MEASURED]
    values = measured_artifact(planned, session.planned, session.config, few, scored.classes)
    ids = [image_id for image_id, _ in scored.mask_digests()]
    for key, column in values.items():
        if key.startswith("per_image.") or key == "truth":
            values[key] = (column * (len(ids) // len(few) + 1))[: len(ids)]
    values |= {"images": len(ids), "scored_images": len(ids), "per_image.id": ids}
    place = place_of(planned, session.config, session.dataset, session.workspace.root)
    write_sealed_json(place.path, values)


def _many_links(root: Path, scale: float) -> None:
    """Hard links to one file; a file system that allows no more of them gets a copy now and then."""
    source = root / "one.jpg"

    def photograph(path: Path) -> None:
        nonlocal source
        try:
            os.link(source, path)
        except OSError:
            path.write_bytes(source.read_bytes())
            source = path

    make_coco(root, scale, size=SIZE, photograph=photograph)


def _cams(samples: Sequence[Sample]) -> Iterator[tuple[str, Arrays]]:
    agreement = np.tile(np.linspace(1, 0.5, len(THRESHOLDS)), (2, 1)).astype(np.float16)
    for sample in samples:
        confidence = np.full(COCO_CATEGORIES, 0.1, np.float16)
        confidence[list(sample.tags)] = 0.9
        yield (
            sample.id,
            {
                "maps": _maps(len(sample.tags)),
                "classes": np.asarray(sample.tags, np.uint8),
                "confidence": confidence,
                "agreement": agreement,
                "colour_information": agreement[0],
            },
        )


@cache
def _maps(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return np.random.default_rng(count).random((count, *GRID)).astype(np.float16)


def _masks(samples: Sequence[Sample]) -> Iterator[tuple[str, Arrays]]:
    for sample in samples:
        labels = _labels(sample)
        yield sample.id, {"masks": labels, "labels": labels}


def _predictions(samples: Sequence[Sample]) -> Iterator[tuple[str, Arrays]]:
    for sample in samples:
        yield sample.id, {"predictions": _labels(sample)}


def _labels(sample: Sample) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One tag on the left half."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:, : SIZE[1] // 2] = sample.tags[0] + 1 if sample.tags else 0
    return labels
