"""Stage 3: pseudo-masks of the training images: a dense CRF in worker processes, local refinement on the device, or
another program's masks.

What somebody has corrected is certain in the seed, so that refinement spreads it, and stands in the result.

Writes per image ``masks`` (H, W) uint8 at the image's size, 255 where uncertain: what the segmenter learns from; and
``labels`` (H, W) uint8, the most probable label everywhere: what is scored. Group ``seed`` holds ``threshold`` float64,
the background score that refinement started from.

The CRF's worker processes import this file, so torch is imported where local refinement begins.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data import Sample
from data.images import read_image
from stages import Context
from wsss import IGNORE
from wsss.config import RefineConfig
from wsss.crf import PRESETS, dense_crf, probabilities, pseudo_mask
from wsss.resize import resize_image, resize_labels, resize_maps, working_size
from wsss.runtime.interrupt import check
from wsss.runtime.pool import Submit, look_ahead, pool_workers, progress_bar, worker_processes, worker_threads
from wsss.store.artifacts import Arrays, Artifact, write_sharded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Seed:
    """What a refiner is given of one image.

    Attributes:
        image: (h, w, 3) uint8, the image at the working size.
        probability: (K + 1, h, w) float32 over background and the tagged classes, sums to 1; certain where corrected.
        labels: (K + 1,) int64, their mask values; the first is 0.
        full: (H, W) of the image.
    """

    image: NDArray[np.uint8]
    probability: NDArray[np.float32]
    labels: NDArray[np.int64]
    full: tuple[int, int]


def compute(context: Context) -> None:
    """Compute and write the artifact."""
    samples = {sample.id: sample for sample in context.data.samples}
    config = context.config.refine
    if config.method == "import":
        write_imported(context)
        return
    with (
        closing(Artifact(context.inputs["cams"])) as cams,
        progress_bar(len(samples), context.stamp.stage, "img") as bar,
    ):
        background = seed_threshold(config, cams)
        context.log({"stage": context.stamp.stage, "event": "threshold", "background": background})
        groups = {"seed": {"threshold": np.asarray(background, np.float64)}}
        with _refiner(context, cams, background) as (submit, depth):

            def produce(ids: Sequence[str]) -> Iterator[Arrays]:
                found = look_ahead(submit, (samples[image_id] for image_id in ids), depth=depth)
                for image_id, arrays in zip(ids, found, strict=True):
                    yield {name: samples[image_id].corrected(array) for name, array in arrays.items()}

            write_sharded(
                context.output,
                context.stamp,
                list(samples),
                produce,
                groups=lambda _: groups,
                done=bar.update,
            )


def write_imported(context: Context) -> None:
    """Write the artifact of another program's masks. An image without one teaches its tags alone."""
    config, samples = context.config.refine, {sample.id: sample for sample in context.data.samples}

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        for sample in (samples[image_id] for image_id in ids):
            check()
            uncertain = np.full(sample.size, IGNORE if sample.tags else 0, np.uint8)
            mask = sample.imported.mask.read() if sample.imported else uncertain
            if config.hold_to_tags:
                tagged = np.isin(mask, [0, *(tag + 1 for tag in sample.tags)])
                mask = np.where(tagged, mask, np.uint8(IGNORE))
            mask = sample.corrected(mask)
            yield {"masks": mask, "labels": np.where(mask == IGNORE, np.uint8(0), mask)}

    groups = {"seed": {"threshold": np.asarray(config.background, np.float64)}}
    with progress_bar(len(samples), context.stamp.stage, "img") as bar:
        write_sharded(
            context.output, context.stamp, list(samples), produce, groups=lambda _: groups, done=bar.update
        )


@contextmanager
def _refiner(
    context: Context, cams: Artifact, background: float
) -> Iterator[tuple[Submit[Sample, Arrays], int]]:
    """What takes samples, and how many may be under way: where writing is slower, masks do not pile up."""
    config = context.config.refine
    if config.method == "crf":
        workers = pool_workers(context.config.run)
        with worker_processes(workers, partial(refine_by_crf, cams, config, background)) as submit:
            yield submit, 4 * workers
    else:
        from wsss.runtime.device import choose_device

        device = choose_device(context.config.run.device)
        threads = 1 if device.type == "cpu" else 4  # a CPU needs its cores for the refinement of one image
        with worker_threads(threads, partial(refine_locally, cams, config, background, device)) as submit:
            yield submit, 2 * threads


def seed_threshold(config: RefineConfig, cams: Artifact) -> float:
    """The background score that the seed and its refinement start from.

    As configured, or with ``threshold = "label-free"`` the one that stage `cams` has stored; ``background`` where no
    image has a tag.
    """
    if config.threshold == "fixed":
        return config.background
    chosen = float(cams.group("label_free")["threshold"])
    return config.background if np.isnan(chosen) else chosen


def read_seed(cams: Artifact, sample: Sample, *, max_side: int, background: float) -> Seed:
    """The seed of a sample, its long side at most ``max_side``. Safe in threads."""
    image = read_image(sample.image)
    full = (image.shape[0], image.shape[1])
    size = working_size(*full, max_side)
    maps = resize_maps(cams.read(sample.id, "maps"), size)
    labels = np.concatenate([[0], cams.read(sample.id, "classes").astype(np.int64) + 1])
    probability = probabilities(maps, background)
    if sample.correction:
        said = resize_labels(sample.correction.mask.read(), size)
        known = np.isin(said, labels)
        probability[:, known] = said[known] == labels[:, None]
    return Seed(resize_image(image, size), probability, labels, full)


def decide(seed: Seed, posterior: NDArray[np.float32], unsure: float) -> Arrays:
    """The arrays ``masks`` and ``labels``, both (H, W) uint8, from a posterior (K + 1, h, w)."""
    mask, best = pseudo_mask(posterior, seed.labels, unsure=unsure)
    return {"masks": resize_labels(mask, seed.full), "labels": resize_labels(best, seed.full)}


def refine_by_crf(cams: Artifact, config: RefineConfig, background: float, sample: Sample) -> Arrays:
    """The arrays of a sample, by a dense CRF on its processor core."""
    seed = read_seed(cams, sample, max_side=config.max_side, background=background)
    return decide(seed, crf_posterior(seed, config), config.unsure)


def crf_posterior(seed: Seed, config: RefineConfig) -> NDArray[np.float32]:
    """(K + 1, h, w) float32."""
    return dense_crf(
        seed.image,
        seed.probability,
        PRESETS[config.preset],
        iterations=config.iterations,
        unary_weight=config.unary_weight,
    )


def refine_locally(
    cams: Artifact, config: RefineConfig, background: float, device: "torch.device", sample: Sample
) -> Arrays:
    """The arrays of a sample, by local refinement on the device."""
    seed = read_seed(cams, sample, max_side=local_side(config), background=background)
    return decide(seed, local_posterior(seed, config, device), config.local_unsure)


def local_side(config: RefineConfig) -> int:
    """Long side of what local refinement works on: small, since its reach is in pixels (docs/masks.md)."""
    return min(config.local_side, config.max_side)


def local_posterior(seed: Seed, config: RefineConfig, device: "torch.device") -> NDArray[np.float32]:
    """(K + 1, h, w) float32 of the image at most ``config.max_side`` large."""
    import torch
    import torch.nn.functional as F

    from wsss.par import refine_local

    with torch.inference_mode():
        image = torch.from_numpy(seed.image).to(device).permute(2, 0, 1).float() / 255
        probability = torch.from_numpy(seed.probability).to(device)[None]
        refined = refine_local(image, probability, iterations=config.iterations)
        size = working_size(*seed.full, config.max_side)
        posterior = F.interpolate(refined, size=size, mode="bilinear", align_corners=False)[0]
        return posterior.cpu().numpy()
