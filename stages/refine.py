"""The seed's threshold: as configured, or chosen without ground truth.

What both methods of stage `refine` share: what they start from, and what they end with.

Stage 3: pseudo-masks of the training images: a dense CRF in a pool of processes, or local refinement on the device.

Writes per image ``masks`` (H, W) uint8 at the photograph's size, 255 where unsure: what the segmenter learns
from; and ``labels`` (H, W) uint8, the most probable label everywhere: what is scored.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from stages.context import Context
from wsss.config import RefineConfig
from wsss.crf import PRESETS, dense_crf, probabilities, pseudo_mask
from wsss.metrics import THRESHOLDS
from wsss.metrics.indicators import label_free_threshold
from wsss.resize import resize_image, resize_labels, resize_maps, working_size
from wsss.runtime.interrupt import check
from wsss.runtime.pool import ServingPool, pool_workers
from wsss.runtime.progress import progress_bar
from wsss.store.artifacts import Arrays, Artifact, write_sharded


def seed_threshold(config: RefineConfig, cams: Artifact) -> float:
    """The background score that the seed and its refinement start from.

    With ``threshold = "label-free"`` it is the one at which colour information (see `wsss.metrics.indicators`),
    averaged over all training images, is largest; ``background`` where no image has a tag.
    """
    if config.threshold == "fixed":
        return config.background
    total = np.zeros(len(THRESHOLDS))
    for image_id in cams.ids:
        total += cams.read(image_id, "colour_information").astype(np.float64)
    chosen = label_free_threshold(total)
    return config.background if chosen is None else chosen


@dataclass(frozen=True)
class Seed:
    """What a refiner is given of one image.

    Attributes:
        image: (h, w, 3) uint8, the photograph at the working size.
        probability: (K + 1, h, w) float32 over background and the tagged classes, sums to 1.
        labels: (K + 1,) int64, their mask values; the first is 0.
        full: (H, W) of the photograph.
    """

    image: NDArray[np.uint8]
    probability: NDArray[np.float32]
    labels: NDArray[np.int64]
    full: tuple[int, int]


@dataclass(frozen=True)
class SeedReader:
    """Reads photographs and CAMs; picklable, and safe in threads.

    Attributes:
        cams: the artifact of stage `cams`.
        max_side: long side of the working size at most.
        background: the background score.
    """

    cams: Artifact
    max_side: int
    background: float

    def __call__(self, sample: Sample) -> Seed:
        """The seed of a sample."""
        image = read_image(sample.image)
        full = (image.shape[0], image.shape[1])
        size = working_size(*full, self.max_side)
        maps = resize_maps(self.cams.read(sample.id, "maps"), size)
        labels = np.concatenate([[0], self.cams.read(sample.id, "classes").astype(np.int64) + 1])
        return Seed(resize_image(image, size), probabilities(maps, self.background), labels, full)


def decide(seed: Seed, posterior: NDArray[np.float32], unsure: float) -> Arrays:
    """The arrays ``masks`` and ``labels``, both (H, W) uint8, from a posterior (K + 1, h, w)."""
    mask, best = pseudo_mask(posterior, seed.labels, unsure=unsure)
    return {"masks": resize_labels(mask, seed.full), "labels": resize_labels(best, seed.full)}


AHEAD = 4
"""Images under way per worker: where writing is slower than the CRF, finished masks do not pile up."""
Produce = Callable[[Sequence[str]], Iterator[Arrays]]


def compute(context: Context) -> None:
    """Compute and write the artifact."""
    cams = Artifact(context.inputs["cams"])
    background = seed_threshold(context.config.refine, cams)
    context.log({"stage": context.stamp.stage, "event": "threshold", "background": background})
    method = {"crf": _by_crf, "local": _locally}[context.config.refine.method]
    method(context, cams, background)


def _locally(context: Context, cams: Artifact, background: float) -> None:
    # Imported here: the CRF's processes import this file, and need no torch.
    from stages.local_refining import LocalRefiner, local_seeds
    from wsss.runtime.device import choose_device

    samples = {sample.id: sample for sample in context.data.samples}
    config = context.config.refine
    seeds = local_seeds(cams, config, background)
    refiner = LocalRefiner(seeds, config, choose_device(context.config.run.device))

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        return refiner([samples[image_id] for image_id in ids])

    _write(context, produce)


def _by_crf(context: Context, cams: Artifact, background: float) -> None:
    samples = {sample.id: sample for sample in context.data.samples}
    config = context.config.refine
    refiner = CrfRefiner(SeedReader(cams, config.max_side, background), config)
    workers = pool_workers(context.config.run)
    ahead = AHEAD * workers
    with ServingPool(workers, refiner) as pool:

        def produce(ids: Sequence[str]) -> Iterator[Arrays]:
            waiting = deque(pool.hand(samples[image_id]) for image_id in ids[:ahead])
            try:
                for image_id in ids[ahead:]:
                    check()
                    yield waiting.popleft().result()
                    waiting.append(pool.hand(samples[image_id]))
                while waiting:
                    check()
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

        _write(context, produce)


def _write(context: Context, produce: Produce) -> None:
    ids = [sample.id for sample in context.data.samples]
    with progress_bar(len(ids), context.stamp.stage, "img") as bar:
        write_sharded(context.output, context.stamp, ids, produce, done=bar.update)


@dataclass(frozen=True)
class CrfRefiner:
    """Turns one sample's CAMs into its pseudo-mask; pickled to each worker once."""

    seeds: SeedReader
    config: RefineConfig

    def __call__(self, sample: Sample) -> Arrays:
        """The arrays ``masks`` and ``labels`` of a sample, both (H, W) uint8."""
        seed = self.seeds(sample)
        return decide(seed, self.posterior(seed), self.config.unsure)

    def posterior(self, seed: Seed) -> NDArray[np.float32]:
        """(K + 1, h, w) float32."""
        preset = PRESETS[self.config.preset]
        return dense_crf(seed.image, seed.probability, preset, iterations=self.config.iterations)
