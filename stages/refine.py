"""Stage 3: pseudo-masks of the training images: a dense CRF in a pool of processes, or local refinement on the device.

Writes per image ``masks`` (H, W) uint8 at the photograph's size, 255 where unsure: what the segmenter learns
from; and ``labels`` (H, W) uint8, the most probable label everywhere: what is scored.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data import Sample
from stages.context import Context
from stages.refining import Seed, SeedReader, decide
from stages.threshold import seed_threshold
from wsss.artifacts import Arrays, Artifact, write_sharded
from wsss.config import RefineConfig
from wsss.crf import PRESETS, dense_crf
from wsss.interrupt import check
from wsss.progress import progress_bar
from wsss.workers import ServingPool, pool_workers

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
    from wsss.device import choose_device

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
