"""Stage 2: multi-scale class activation maps of the training images, tagged classes only.

They are the deployed network's; with ``cams.exits`` those of the named exits are fused with them.

Writes per image

- ``maps`` (K, h, w) float16 in [0, 1] at stride 4 of the working image, and ``classes`` (K,) uint8, 0..C-1;
- ``confidence`` (C,) float16: the classifier's probability of every class, averaged over the views;
- ``agreement`` (2, T) float16: kappa of the seeds of upright and mirrored, and of small and large views, at every
  threshold of the sweep; NaN where there are no such views. Only here are the views at hand.
- ``colour_information`` (T,) float16: that of the seed at every threshold, for the label-free choice;

and as group ``label_free`` that choice: ``threshold`` float64, the background score at which colour information (see
`wsss.metrics.indicators`), averaged over all images, is largest; NaN where no image has a tag.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data import Sample
from data.loading import whole_image
from stages import Context
from stages.training import check_cam_exits, load_deployed, load_multi_exit
from wsss.cams import CamViews, class_activation_views
from wsss.memory import reusing_memory
from wsss.metrics.indicators import agreement_curve, colour_information_curve, label_free_threshold
from wsss.metrics.sweep import THRESHOLDS
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork
from wsss.quantised import quantised
from wsss.resize import resize_image
from wsss.runtime.device import autocast, choose_device, choose_integers, choose_precision
from wsss.runtime.pool import in_order, loader_workers
from wsss.runtime.progress import progress_bar
from wsss.store.artifacts import Arrays, Artifact, Groups, write_sharded

TRIALS = 8
"""Photographs on which CAMs of a network in integers are compared with its own."""
TRIAL_SIDE = 256
"""Their long side, if ``cams.max_side`` is not smaller."""
TRIAL_DIFFERENCE = 0.01
"""The largest mean difference of CAMs, which are in [0, 1], with which integers are used."""


def compute(context: Context) -> None:
    """Compute and write the artifact."""
    samples = {sample.id: sample for sample in context.data.samples}
    device = choose_device(context.config.run.device)
    work = _in_integers(_Work(context, _network(context, device), device))
    # On a CPU the network alone keeps all cores busy; a GPU waits for one thread that reads and counts.
    threads = max(1, loader_workers(context.config.run, accelerator=True)) if device.type == "cuda" else 1

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        images = reusing_memory(samples[image_id] for image_id in ids)
        yield from in_order(work, images, threads=threads)

    def of_shards(shards: Sequence[Artifact]) -> Groups:
        return label_free(
            shard.read(image_id, "colour_information") for shard in shards for image_id in shard.ids
        )

    with progress_bar(len(samples), context.stamp.stage, "img") as bar:
        write_sharded(
            context.output, context.stamp, list(samples), produce, groups=of_shards, done=bar.update
        )


class _Work:
    """The arrays of an image; may be called in several threads at once."""

    def __init__(
        self, context: Context, network: PlainNetwork | MultiExitNetwork, device: torch.device
    ) -> None:
        self.context = context
        self.network = network
        self.device = device
        self.precision = choose_precision(context.config.run, device)

    def __call__(self, sample: Sample) -> Arrays:
        image = whole_image(sample, self.context.config.cams.max_side)
        views = self.views(image, sample.tags)
        maps = views.cams().cpu().numpy().astype(np.float16)
        small = resize_image(_pixels(image), (maps.shape[1], maps.shape[2]))
        return {
            "maps": maps,
            "classes": np.asarray(sample.tags, dtype=np.uint8),
            "confidence": views.logits.sigmoid().mean(0).cpu().numpy().astype(np.float16),
            "agreement": _agreement(views),
            "colour_information": colour_information_curve(small, maps).astype(np.float16),
        }

    def views(self, image: Tensor, tags: Sequence[int]) -> CamViews:
        """Those of an image (3, H, W)."""
        config = self.context.config.cams
        with autocast(self.device, self.precision):
            return class_activation_views(
                self.network,
                image.to(self.device),
                tags,
                scales=config.scales,
                flip=config.flip,
                pool=self.context.config.classify.pool,
                exits=config.exits,
                fusion=config.fusion,
                exit_weight=config.exit_weight,
            )


def _network(context: Context, device: torch.device) -> PlainNetwork | MultiExitNetwork:
    """The classification network, with its exits where their maps are wanted."""
    config = context.config.classify
    classes = len(context.data.classes)
    if not context.config.cams.exits:
        return load_deployed(context.inputs["classify"], config, classes, device)
    check_cam_exits(context.config.cams, config)
    return load_multi_exit(context.inputs["classify"], config, classes, device)


def _in_integers(work: _Work) -> _Work:
    """The same with the network's convolutions in 8-bit integers, where these are quicker and the CAMs hardly differ.

    Seen on a few small copies of the training photographs, the same ones in every process.
    """
    context = work.context
    tagged = [sample for sample in context.data.samples if sample.tags]
    if not (
        choose_integers(context.config.run, work.device) and isinstance(work.network, PlainNetwork) and tagged
    ):
        return work
    network = quantised(work.network)
    if network is work.network:
        return work
    quicker = _Work(context, network, work.device)
    distance = _mean_difference(work, quicker, tagged[:: -(-len(tagged) // TRIALS)])
    used = distance <= TRIAL_DIFFERENCE
    figures = {"used": used, "mean_difference": round(distance, 5)}
    context.log({"stage": context.stamp.stage, "event": "integers", **figures})
    return quicker if used else work


def _mean_difference(work: _Work, other: _Work, samples: Sequence[Sample]) -> float:
    """Of the CAMs of two, on small copies of some photographs."""
    side = min(TRIAL_SIDE, work.context.config.cams.max_side)
    distances = []
    for sample in reusing_memory(samples):
        image = whole_image(sample, side)
        one, two = (each.views(image, sample.tags).cams() for each in (work, other))
        distances.append(float((one - two).abs().mean()))
    return float(np.mean(distances))


def label_free(curves: Iterable[NDArray[np.floating]]) -> Groups:
    """The group of that name, from the images' curves (T,) of colour information."""
    total = np.zeros(len(THRESHOLDS))
    for curve in curves:
        total += curve.astype(np.float64)
    chosen = label_free_threshold(total)
    return {"label_free": {"threshold": np.asarray(np.nan if chosen is None else chosen, np.float64)}}


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) float in [0, 1] -> (H, W, 3) uint8."""
    return np.asarray((image.permute(1, 2, 0) * 255).round().byte().numpy())


def _agreement(views: CamViews) -> NDArray[np.float16]:
    curves = np.full((2, len(THRESHOLDS)), np.nan, np.float16)
    for row, halves in enumerate((views.mirror_halves(), views.scale_halves())):
        if halves is not None:
            curves[row] = agreement_curve(halves[0].cpu().numpy(), halves[1].cpu().numpy())
    return curves
