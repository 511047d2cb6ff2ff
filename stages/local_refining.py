"""Local refinement of many photographs on one device: while it works, the next are read and the last are written."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data import Sample
from stages.refine import Seed, SeedReader, decide
from wsss.config import RefineConfig
from wsss.par import refine_local
from wsss.resize import working_size
from wsss.runtime.interrupt import check
from wsss.store.artifacts import Arrays, Artifact

READERS = 4
"""Threads that read for an accelerator; a CPU needs its cores for the refinement."""
UNDER_WAY = 2
"""Images queued on the device before the first of them is waited for."""


def local_seeds(cams: Artifact, config: RefineConfig, background: float) -> SeedReader:
    """What local refinement starts from: small images, since its reach is in pixels (docs/refiners.md)."""
    return SeedReader(cams, min(config.local_side, config.max_side), background)


@dataclass(frozen=True)
class LocalRefiner:
    """Turns CAMs into pseudo-masks, image by image (photographs differ in size).

    Attributes:
        seeds: what is started from; their size is the one that is refined at, see `local_seeds`.
        config: of the stage.
        device: where it is computed.
    """

    seeds: SeedReader
    config: RefineConfig
    device: torch.device

    def __call__(self, samples: Sequence[Sample]) -> Iterator[Arrays]:
        """The arrays ``masks`` and ``labels`` of each sample, both (H, W) uint8, in order."""
        with self._reading(samples) as seeds:
            queued: deque[tuple[Seed, Tensor]] = deque()
            for seed in seeds:
                check()
                queued.append((seed, self.posterior(seed)))
                if len(queued) > UNDER_WAY:
                    yield self._decided(*queued.popleft())
            while queued:
                yield self._decided(*queued.popleft())

    @torch.inference_mode()
    def posterior(self, seed: Seed) -> Tensor:
        """(K + 1, h, w) float32 on the device, at most ``max_side`` large. Nothing here waits for a GPU to be done."""
        image = self._sent(torch.from_numpy(seed.image)).permute(2, 0, 1).float() / 255
        probability = self._sent(torch.from_numpy(seed.probability))[None]
        refined = refine_local(image, probability, iterations=self.config.iterations)
        size = working_size(*seed.full, self.config.max_side)
        return F.interpolate(refined, size=size, mode="bilinear", align_corners=False)[0]

    @contextlib.contextmanager
    def _reading(self, samples: Sequence[Sample]) -> Iterator[Iterable[Seed]]:
        if self.device.type == "cpu":
            yield map(self.seeds, samples)
            return
        with ThreadPoolExecutor(READERS) as pool:
            yield read_ahead(pool, self.seeds, samples)

    def _sent(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()  # a copy from pageable memory would wait
        return tensor.to(self.device, non_blocking=True)

    def _decided(self, seed: Seed, posterior: Tensor) -> Arrays:
        return decide(seed, posterior.cpu().numpy(), self.config.local_unsure)


def read_ahead(pool: Executor, read: SeedReader, samples: Sequence[Sample]) -> Iterator[Seed]:
    """Seeds in order, with a few samples being read ahead: finished ones do not pile up."""
    depth = 2 * READERS
    waiting = deque(pool.submit(read, sample) for sample in samples[:depth])
    try:
        for sample in samples[depth:]:
            yield waiting.popleft().result()
            waiting.append(pool.submit(read, sample))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
