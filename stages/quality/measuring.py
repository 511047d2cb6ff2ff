"""The measuring itself: all images of an artifact, chunk by chunk, in a pool of processes."""

from collections.abc import Iterator, Mapping, Sequence

from data import Sample
from stages import Planned
from stages.quality.images import Chunk, Measurer
from stages.quality.measured import Values
from stages.quality.values import measured_values
from stages.threshold import seed_threshold
from wsss.artifacts import Artifact
from wsss.config import Config
from wsss.interrupt import check
from wsss.progress import progress_bar
from wsss.workers import ServingPool, pool_workers

CHUNK = 32
"""Images measured at a time: fixed, so that sums are formed in the same order whatever the number of workers."""
CHOSEN_BY = {
    "fixed": "the configuration (refine.background)",
    "label-free": "colour information, without ground truth (refine.threshold)",
}
POOL_FROM = 3 * CHUNK
"""Fewer images are measured in this process: starting others takes longer."""


def measured_artifact(
    planned: Planned,
    everything: Mapping[str, Planned],
    config: Config,
    samples: Sequence[Sample],
    classes: tuple[str, ...],
) -> Values:
    """Measure the images of a stage's artifact; see `stages.quality.measure.measure`."""
    seed = everything.get("cams")
    artifact = Artifact(planned.path, fingerprint=planned.stamp.fingerprint)
    cams = Artifact(seed.path) if planned.name == "refine" and seed and seed.cached else None
    seeds = artifact if planned.name == "cams" else cams
    try:
        background = seed_threshold(config.refine, seeds) if seeds else config.refine.background
        exits = _predicting_exits(artifact) if planned.name == "segment" else []
        measurer = Measurer(planned.name, artifact, cams, len(classes) + 1, background, len(exits))
        found = _measured(measurer, samples, pool_workers(config.run))
    finally:
        for opened in filter(None, (artifact, cams)):
            opened.close()
    head = {
        "split": config.data.val_split if planned.name == "segment" else config.data.train_split,
        "fingerprint": planned.stamp.fingerprint,
        "truth": [sample.mask_digest for sample in samples],
    }
    chosen_by = CHOSEN_BY[config.refine.threshold]
    return head | measured_values(planned.name, found, background, chosen_by, exits)


def _predicting_exits(artifact: Artifact) -> list[int]:
    """The blocks of the shallower exits whose predictions the artifact has."""
    blocks: list[int] = artifact.group("predicting_exits")["blocks"].tolist()
    return blocks


def _measured(measurer: Measurer, samples: Sequence[Sample], workers: int) -> Chunk:
    total = Chunk.empty(measurer.labels, measurer.exits)
    with progress_bar(len(samples), "measure", "img") as bar:
        for chunk in _chunks(measurer, samples, workers):
            total.merge(chunk)
            bar.update(len(chunk.ids))
    return total


def _chunks(measurer: Measurer, samples: Sequence[Sample], workers: int) -> Iterator[Chunk]:
    parts = [list(samples[start : start + CHUNK]) for start in range(0, len(samples), CHUNK)]
    if workers < 2 or len(samples) < POOL_FROM:
        for part in parts:
            check()
            yield measurer(part)
        return
    with ServingPool(workers, measurer) as pool:
        yield from _ahead(pool, parts, 2 * workers)


def _ahead(
    pool: ServingPool[Sequence[Sample], Chunk], parts: list[list[Sample]], depth: int
) -> Iterator[Chunk]:
    """Results in order, with at most ``depth`` chunks under way: finished ones do not pile up."""
    waiting = [pool.hand(part) for part in parts[:depth]]
    try:
        for position in range(len(parts)):
            check()
            yield waiting.pop(0).result()
            if position + depth < len(parts):
                waiting.append(pool.hand(parts[position + depth]))
    finally:
        for future in waiting:
            future.cancel()
