"""What is measured about a stage's masks: image by image, in worker processes; kept in the workspace."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from data import Dataset, Sample
from data.images import read_image
from stages import Planned
from stages.commands.report.values import CURVES, Counted, Values, measured_values
from stages.commands.session import Session
from stages.refine import seed_threshold
from wsss import IGNORE
from wsss.metrics.boundary import boundary_counts
from wsss.metrics.confusion import Labels, confusion_counts, image_miou, label_pixels, label_rows
from wsss.metrics.failures import failure_counts
from wsss.metrics.indicators import agreement, colour_information, edge_alignment, gradient_ranks
from wsss.metrics.sweep import THRESHOLDS, reaching, seed_labels, strongest_labels, sweep_counts
from wsss.resize import resize_maps
from wsss.runtime.pool import look_ahead, pool_workers, progress_bar, worker_processes, worker_threads
from wsss.store.artifacts import Artifact
from wsss.store.files import digest_of, is_kept, parse_json, write_sealed_json

VERSION = 7
"""Raised when something is measured differently, so that all is measured again."""
Found = tuple[Labels, dict[str, NDArray[Any]], dict[str, float]]
"""An image's mask (H, W), sums (see `Counted`), and indicators."""
CHUNK = 32
"""Images measured at a time: fixed, so that sums are formed in the same order whatever the number of workers."""
POOL_FROM = 3 * CHUNK
"""Fewer images are measured in this process: starting others takes longer."""
NAMED = 0.005
"""A prediction names a class where it covers at least this share of the image."""
AGAIN = "it is measured again"
CHOSEN_BY = {
    "fixed": "the configuration (refine.background)",
    "label-free": "colour information, without ground truth (refine.threshold)",
}


def measure(session: Session) -> dict[str, Path]:
    """Measure every cached stage that is not measured yet, and return where each one's metrics are kept.

    ``cams``: the seed at the configured background score, and the whole sweep. ``refine``: the refined labels.
    ``segment``: predictions of the validation split. Scores where images have masks, indicators for all. `classify` has
    no metrics, nor has a stage whose split is empty.
    """
    paths = {}
    for stage, item in session.planned.items():
        scored = scored_images(session, stage)
        if stage != "classify" and item.cached and len(scored):
            # What the metrics depend on is in the name; `prune` knows the fingerprint.
            refine = session.config.refine
            background = [refine.threshold, refine.background] if stage == "cams" else None
            key = digest_of([VERSION, item.stamp.fingerprint, background, scored.mask_digests()])
            path = session.workspace.root / "scores" / f"{stage}-{item.stamp.fingerprint}-{key}.json"
            if not is_kept(path, AGAIN):
                write_sealed_json(path, _measured(session, item, scored.samples))
            paths[stage] = path
    return paths


def read_metrics(path: Path) -> Values:
    """What `measure` has kept; with an entry per image it is much."""
    values: Values = parse_json(path.read_bytes())
    del values["sha256"]
    return values


def headlines(measured: Mapping[str, Path]) -> dict[str, Values]:
    """The single figures of every stage; what has an entry per image or label is not parsed."""
    found = {}
    for stage, path in measured.items():
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        single = {key: bytes(value) for key, value in raw.items() if not bytes(value).startswith(b"[")}
        found[stage] = {key: msgspec.json.decode(value) for key, value in single.items()}
    return found


def scored_images(session: Session, stage: str) -> Dataset:
    """The images by which a stage is judged: validation for segment, training for all else."""
    data = session.config.data
    return session.dataset.split(data.val_split if stage == "segment" else data.train_split)


def _measured(session: Session, planned: Planned, samples: Sequence[Sample]) -> Values:
    """All figures of a stage's artifact."""
    stage, config, seed = planned.name, session.config, session.planned.get("cams")
    background, exits = config.refine.background, list[int]()
    drawn = [
        sample for sample in samples if sample.correction
    ]  # what somebody has drawn is no result of this stage
    if stage != "refine" or len(drawn) == len(samples):
        drawn = []
    kept, apart = [sample for sample in samples if sample not in drawn], Values()
    with ExitStack() as opened:
        artifact, cams = opened.enter_context(closing(Artifact(planned.path))), None
        if stage == "cams":
            background = seed_threshold(config.refine, artifact)
        elif stage == "segment":
            exits = artifact.group("predicting_exits")["blocks"].tolist()
        else:
            background = float(artifact.group("seed")["threshold"])
            if seed and seed.cached:
                cams = opened.enter_context(closing(Artifact(seed.path)))
        source = Source(stage, artifact, cams, len(session.dataset.classes) + 1, background, bool(exits))
        counted = _counted(source, kept, pool_workers(config.run))
        if drawn:
            scores = measured_values(stage, _counted(source, drawn, 1), background, "")
            apart = {"corrected.images": len(drawn), "corrected.miou": scores.get("miou")}
    return {
        "split": config.data.val_split if stage == "segment" else config.data.train_split,
        "fingerprint": planned.stamp.fingerprint,
        "truth": [sample.mask_digest for sample in kept],
        **apart,
        **measured_values(stage, counted, background, CHOSEN_BY[config.refine.threshold], exits),
    }


@dataclass(frozen=True)
class Source:
    """What is measured, pickled to worker processes: a stage's artifact with L ``labels``.

    ``cams`` is the seed that refine started from, ``background`` its threshold; ``exits``: whether the artifact has
    predictions of shallower exits (segment only).
    """

    stage: str
    artifact: Artifact
    cams: Artifact | None
    labels: int
    background: float
    exits: bool


def _counted(source: Source, samples: Sequence[Sample], workers: int) -> Counted:
    parts = [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]
    work, total = partial(count_images, source), Counted()
    enough = workers > 1 and len(samples) >= POOL_FROM
    pool = worker_processes(workers, work) if enough else worker_threads(1, work)
    with pool as submit, progress_bar(len(samples), "measure", "img") as bar:
        for chunk in look_ahead(submit, parts, depth=2 * workers):
            total.merge(chunk)
            bar.update(len(chunk.rows))
    return total


def count_images(source: Source, samples: Sequence[Sample]) -> Counted:
    """Everything that is counted about some images."""
    counted = Counted()
    count = {"cams": _seed, "refine": _pseudo_mask, "segment": _prediction}[source.stage]
    for sample in samples:
        image = read_image(sample.image)
        truth = sample.mask.read() if sample.mask else None
        mask, sums, indicators = count(source, sample, image, truth)
        pixels, tags = label_pixels(mask)[1:], list(sample.tags)
        sums["tags"] = np.zeros((source.labels - 1, 4), np.int64)
        for tag in tags:
            sums["tags"][tag] = (1, pixels[tag] > 0, pixels[tag], mask.size)
        indicators["edge_alignment"] = edge_alignment(gradient_ranks(image), mask)
        indicators["covered"] = _mean(pixels[tags] > 0)
        indicators["area"] = float(pixels[: source.labels - 1].sum() / mask.size)
        row: dict[str, Any] = {"id": sample.id, "miou": None, "labels": None, "failures": None}
        row |= {f"indicator.{name}": value for name, value in indicators.items()}
        if truth is not None:
            confusion = confusion_counts(truth, mask, source.labels)
            boundary = boundary_counts(truth, mask, source.labels)
            failures = failure_counts(truth, mask, source.labels)
            ignored = np.array([np.count_nonzero(truth == IGNORE), truth.size])
            sums |= {"confusion": confusion, "boundary": boundary, "ignored": ignored, **vars(failures)}
            labels = label_rows(confusion, boundary)
            row |= {"miou": image_miou(labels), "labels": labels, "failures": failures.row()}
        counted.merge(Counted(sums, [row]))
    return counted


def _seed(source: Source, sample: Sample, image: NDArray[np.uint8], truth: Labels | None) -> Found:
    maps, classes, agreements, colours = (
        source.artifact.read(sample.id, name)
        for name in ("maps", "classes", "agreement", "colour_information")
    )
    label, value = strongest_labels(resize_maps(maps, image.shape[:2]), classes)
    sums: dict[str, NDArray[Any]] = {}
    if truth is not None:
        sums["sweep"] = sweep_counts(truth, label, value, source.labels)
    for name, curve in zip(CURVES, (*agreements, colours), strict=True):
        known = np.isfinite(curve)
        sums[f"curve.{name}"] = np.stack([np.where(known, curve, 0), known]).astype(np.float64)
    indicators = _views(source.artifact, sample, source.background)
    indicators["colour_information"] = float(colours[_nearest(source.background)])
    others = np.delete(source.artifact.read(sample.id, "confidence").astype(np.float64), sample.tags)
    indicators["untagged_confidence"] = float(others.max()) if len(others) else float("nan")
    return reaching(label, value, source.background), sums, indicators


def _views(cams: Artifact, sample: Sample, background: float) -> dict[str, float]:
    """How far the views of an image agree, and how sure the classifier is of its tags."""
    curves, confidence = (
        cams.read(sample.id, "agreement"),
        cams.read(sample.id, "confidence").astype(np.float64),
    )
    agreements = zip(CURVES, curves[:, _nearest(background)].tolist(), strict=False)
    return {**dict(agreements), "confidence": _mean(confidence[list(sample.tags)])}


def _nearest(background: float) -> int:
    return int(np.abs(np.asarray(THRESHOLDS) - background).argmin())


def _pseudo_mask(source: Source, sample: Sample, image: NDArray[np.uint8], truth: Labels | None) -> Found:
    labels, masks = (source.artifact.read(sample.id, name) for name in ("labels", "masks"))
    sums = {} if truth is None else {"sure": confusion_counts(truth, masks, source.labels)}
    indicators = {
        "unsure": float(np.mean(masks == IGNORE)),
        "colour_information": colour_information(image, labels),
    }
    if source.cams is not None:
        cams = resize_maps(source.cams.read(sample.id, "maps"), image.shape[:2])
        seed = seed_labels(cams, source.cams.read(sample.id, "classes"), source.background)
        indicators["cam_agreement"] = agreement(seed, labels)
        indicators |= _views(source.cams, sample, source.background)
    return labels, sums, indicators


def _prediction(source: Source, sample: Sample, image: NDArray[np.uint8], truth: Labels | None) -> Found:
    labels = source.artifact.read(sample.id, "predictions")
    sums = {}
    indicators = {"colour_information": colour_information(image, labels)}
    if source.exits:
        each = source.artifact.read(sample.id, "exit_predictions")
        indicators["exit_agreement"] = _mean(np.array([agreement(labels, single) for single in each]))
        if truth is not None:
            sums["exits"] = np.stack([confusion_counts(truth, single, source.labels) for single in each])
    named = label_pixels(labels)[1 : source.labels] >= NAMED * labels.size
    tagged = np.isin(np.arange(source.labels - 1), sample.tags)
    sums["named"] = np.stack([named & tagged, tagged, named], axis=1).astype(np.int64)
    either = np.count_nonzero(named | tagged)
    indicators["tags_named"] = np.count_nonzero(named & tagged) / either if either else 1.0
    return labels, sums, indicators


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")
