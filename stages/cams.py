"""Stage 2: multi-scale class activation maps of the training images, tagged classes only.

They are the deployed network's; with ``cams.exits`` those of the named exits are fused with them.

Writes per image

- ``maps`` (K, h, w) float16 in [0, 1] at stride 4 of the working image, and ``classes`` (K,) uint8, 0..C-1;
- ``confidence`` (C,) float16: the classifier's probability of every class, averaged over the views;
- ``agreement`` (2, T) float16: kappa of the seeds of upright and mirrored, and of small and large views, at every
  threshold of the sweep; NaN where there are no such views. Only here are the views at hand.
- ``colour_information`` (T,) float16: that of the seed at every threshold;

and as group ``label_free`` the choice that follows from the last: ``threshold`` float64, the background score at which
colour information (see `wsss.metrics.indicators`), summed over all images, is largest; NaN where no image has a tag.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from data import Sample
from data.loading import whole_image
from stages import Context
from stages.training import check_cam_exits, load_deployed, load_multi_exit
from wsss.affinity import divided, on_grid, propagate
from wsss.cams import CamViews, block_features, class_activation_views
from wsss.metrics.indicators import agreement_curve, colour_information_curve, label_free_threshold
from wsss.metrics.sweep import THRESHOLDS
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork
from wsss.resize import resize_image
from wsss.runtime.device import autocast, choose_device, choose_precision
from wsss.runtime.pool import in_order, loader_workers, progress_bar
from wsss.store.artifacts import Arrays, Artifact, Groups, write_sharded


def compute(context: Context) -> None:
    """Compute and write the artifact."""
    samples = {sample.id: sample for sample in context.data.samples}
    device = choose_device(context.config.run.device)
    work = partial(cams_of, context, _network(context, device), device)
    # On a CPU the network alone keeps all cores busy; a GPU waits for one thread that reads and counts.
    threads = max(1, loader_workers(context.config.run, accelerator=True)) if device.type == "cuda" else 1

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        return in_order(work, (samples[image_id] for image_id in ids), threads=threads)

    def groups(shards: Sequence[Artifact]) -> Groups:
        return label_free(shard.read(name, "colour_information") for shard in shards for name in shard.ids)

    with progress_bar(len(samples), context.stamp.stage, "img") as bar:
        write_sharded(context.output, context.stamp, list(samples), produce, groups=groups, done=bar.update)


def cams_of(
    context: Context, network: PlainNetwork | MultiExitNetwork, device: torch.device, sample: Sample
) -> Arrays:
    """The arrays of an image. Safe in threads."""
    config = context.config.cams
    image = whole_image(sample, config.max_side)
    with autocast(device, choose_precision(context.config.run, device)):
        views = class_activation_views(
            network,
            image.to(device),
            sample.tags,
            scales=config.scales,
            flip=config.flip,
            pool=context.config.classify.pool,
            exits=config.exits,
            fusion=config.fusion,
            exit_weight=config.exit_weight,
        )
        features = (
            block_features(network, image.to(device), config.propagate, scale=config.propagate_scale)
            if config.propagate and sample.tags
            else []
        )
    cams = views.cams()
    if features and len(cams):
        spread = propagate(cams, features, power=config.propagate_power, steps=config.propagate_steps)
        cams = divided(on_grid(spread, cams.shape[1:]))
    maps = cams.cpu().numpy().astype(np.float16)
    pixels = np.asarray((image.permute(1, 2, 0) * 255).round().byte().numpy())
    small = resize_image(pixels, (maps.shape[1], maps.shape[2]))
    return {
        "maps": maps,
        "classes": np.asarray(sample.tags, dtype=np.uint8),
        "confidence": views.logits.sigmoid().mean(0).cpu().numpy().astype(np.float16),
        "agreement": _agreement(views),
        "colour_information": colour_information_curve(small, maps).astype(np.float16),
    }


def label_free(curves: Iterable[NDArray[np.floating]]) -> Groups:
    """The group of that name, from the images' curves (T,) of colour information."""
    total = np.zeros(len(THRESHOLDS))
    for curve in curves:
        total += curve.astype(np.float64)
    chosen = label_free_threshold(total)
    return {"label_free": {"threshold": np.asarray(np.nan if chosen is None else chosen, np.float64)}}


def _network(context: Context, device: torch.device) -> PlainNetwork | MultiExitNetwork:
    """The classification network, with its exits where their maps are wanted."""
    config = context.config.classify
    classes = len(context.data.classes)
    if not context.config.cams.exits:
        return load_deployed(context.inputs["classify"], config, classes, device)
    check_cam_exits(context.config.cams, config)
    return load_multi_exit(context.inputs["classify"], config, classes, device)


def _agreement(views: CamViews) -> NDArray[np.float16]:
    curves = np.full((2, len(THRESHOLDS)), np.nan, np.float16)
    for row, halves in enumerate((views.mirror_halves(), views.scale_halves())):
        if halves is not None:
            curves[row] = agreement_curve(halves[0].cpu().numpy(), halves[1].cpu().numpy())
    return curves
