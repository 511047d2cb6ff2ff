"""Stage 3: dense CRF pseudo-masks of the training images, in a pool of processes.

Writes per image ``masks`` (H, W) uint8 at the photograph's size, 255 where unsure: what the segmenter learns
from; and ``labels`` (H, W) uint8, the most probable label everywhere: what is scored.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from data import Sample
from data.images import read_image
from stages.context import Context
from stages.threshold import seed_threshold
from wsss.artifacts import Arrays, Artifact, write_sharded
from wsss.config import RefineConfig
from wsss.crf import PRESETS, dense_crf, probabilities, pseudo_mask
from wsss.interrupt import check
from wsss.progress import progress_bar
from wsss.resize import resize_image, resize_labels, resize_maps, working_size
from wsss.workers import pool_workers, serve_parent


def compute(context: Context) -> None:
    """Compute and write the artifact."""
    samples = {sample.id: sample for sample in context.data.samples}
    cams = Artifact(context.inputs["cams"])
    background = seed_threshold(context.config.refine, cams)
    context.log({"stage": context.stamp.stage, "event": "threshold", "background": background})
    refiner = Refiner(cams, context.config.refine, background)
    workers = pool_workers(context.config.run)
    # Spawned, not forked: the parent may hold threads and accelerator state that a fork would corrupt.
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=serve_parent) as pool,
        progress_bar(len(samples), context.stamp.stage, "img") as bar,
    ):

        def produce(ids: Sequence[str]) -> Iterator[Arrays]:
            futures = [pool.submit(refiner, samples[image_id]) for image_id in ids]
            try:
                for future in futures:
                    check()
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()

        write_sharded(context.output, context.stamp, list(samples), produce, done=bar.update)


@dataclass(frozen=True)
class Refiner:
    """Turns one sample's CAMs into its pseudo-mask; pickled to the workers."""

    cams: Artifact
    config: RefineConfig
    background: float

    def __call__(self, sample: Sample) -> Arrays:
        """The arrays ``masks`` and ``labels`` of a sample, both (H, W) uint8."""
        image = read_image(sample.image)
        full = (image.shape[0], image.shape[1])
        size = working_size(*full, self.config.max_side)
        maps = resize_maps(self.cams.read(sample.id, "maps"), size)
        labels = np.concatenate([[0], self.cams.read(sample.id, "classes").astype(np.int64) + 1])
        posterior = dense_crf(
            resize_image(image, size),
            probabilities(maps, self.background),
            PRESETS[self.config.preset],
            iterations=self.config.iterations,
        )
        mask, best = pseudo_mask(posterior, labels, unsure=self.config.unsure)
        return {"masks": resize_labels(mask, full), "labels": resize_labels(best, full)}
