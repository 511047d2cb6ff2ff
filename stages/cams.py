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

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data import Sample
from data.loading import whole_image
from stages import Context
from stages.training import check_cam_exits, load_deployed, load_multi_exit
from wsss.affinity import divided, on_grid, propagate
from wsss.cams import CamViews, block_features, class_activation_views
from wsss.cells import CellClassifier, CellStatistics, cell_features, cell_labels
from wsss.metrics.indicators import agreement_curve, colour_information_curve, label_free_threshold
from wsss.metrics.sweep import THRESHOLDS
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork
from wsss.resize import resize_image
from wsss.runtime.device import autocast, choose_device, choose_precision
from wsss.runtime.pool import in_order, loader_workers, progress_bar
from wsss.store.artifacts import Arrays, Artifact, Groups, parts_of, write_artifact, write_sharded


def compute(context: Context) -> None:
    """Compute and write the artifact."""
    device = choose_device(context.config.run.device)
    network = _network(context, device)
    if not context.config.cams.cells:
        _write(context, context.output, partial(cams_of, context, network, device))
        return
    first = parts_of(context.output) / "first.h5"
    if not first.exists():
        _write_first(context, first, network, device)
    with closing(Artifact(first)) as cams:
        classifier = CellClassifier.from_arrays(cams.group("cells"), device)
        _write(context, context.output, partial(cell_cams_of, context, network, device, classifier, cams))


def _write(context: Context, path: Path, work: Callable[[Sample], Arrays]) -> None:
    """Write what ``work`` makes of each image, and the choice of threshold that follows from all of them."""
    samples = {sample.id: sample for sample in context.data.samples}

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        return in_order(work, (samples[image_id] for image_id in ids), threads=_threads(context))

    def groups(shards: Sequence[Artifact]) -> Groups:
        return label_free(shard.read(name, "colour_information") for shard in shards for name in shard.ids)

    with progress_bar(len(samples), context.stamp.stage, "img") as bar:
        write_sharded(path, context.stamp, list(samples), produce, groups=groups, done=bar.update)


def _write_first(
    context: Context, path: Path, network: PlainNetwork | MultiExitNetwork, device: torch.device
) -> None:
    """Write the CAMs to which the classifier of cells is fitted, and that classifier; its sums beside each shard."""
    samples = {sample.id: sample for sample in context.data.samples}
    start = {image_id: index for index, image_id in enumerate(samples)}
    work = partial(labelled_cams_of, context, network, device)

    def sums_of(ids: Sequence[str]) -> Path:
        return parts_of(path) / f"sums-{start[ids[0]]:08d}.h5"

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        total = CellStatistics.none(len(context.data.classes) + 1)
        for arrays, sums in in_order(work, (samples[name] for name in ids), threads=_threads(context)):
            total += sums
            yield arrays
        write_artifact(sums_of(ids), context.stamp, groups={"sums": total.arrays()})

    def groups(shards: Sequence[Artifact]) -> Groups:
        total = CellStatistics.none(len(context.data.classes) + 1)
        for shard in shards:
            with closing(Artifact(sums_of(shard.ids))) as sums:
                total += CellStatistics.from_arrays(sums.group("sums"))
        return {"cells": total.classifier().arrays()}

    with progress_bar(len(samples), f"{context.stamp.stage} (seeds)", "img") as bar:
        write_sharded(path, context.stamp, list(samples), produce, groups=groups, done=bar.update)


def _threads(context: Context) -> int:
    """On a CPU the network alone keeps all cores busy; a GPU waits for one thread that reads and counts."""
    if choose_device(context.config.run.device).type != "cuda":
        return 1
    return max(1, loader_workers(context.config.run, accelerator=True))


def cams_of(
    context: Context, network: PlainNetwork | MultiExitNetwork, device: torch.device, sample: Sample
) -> Arrays:
    """The arrays of an image. Safe in threads."""
    image = whole_image(sample, context.config.cams.max_side)
    views = _views(context, network, image.to(device), sample)
    return _arrays(sample, image, views, _seed(context, views))


def labelled_cams_of(
    context: Context, network: PlainNetwork | MultiExitNetwork, device: torch.device, sample: Sample
) -> tuple[Arrays, CellStatistics]:
    """The same, and what the image's confident cells give to the classifier of cells. Safe in threads."""
    image = whole_image(sample, context.config.cams.max_side)
    views = _views(context, network, image.to(device), sample)
    cams = _seed(context, views)
    features = cell_features([views.features[block - 1] for block in context.config.cams.cells])
    classes = torch.tensor(sample.tags, dtype=torch.long, device=device)
    labels = cell_labels(on_grid(cams, features.shape[1:]), classes)
    sums = CellStatistics.of(features, labels, len(context.data.classes) + 1)
    return _arrays(sample, image, views, cams), sums


def cell_cams_of(
    context: Context,
    network: PlainNetwork | MultiExitNetwork,
    device: torch.device,
    classifier: CellClassifier,
    first: Artifact,
    sample: Sample,
) -> Arrays:
    """The arrays of an image with the maps of the classifier of cells. Safe in threads.

    A class that the classifier finds nowhere keeps the CAM it was fitted to.
    """
    arrays = {name: first.read(sample.id, name) for name in ("maps", "classes", "confidence", "agreement")}
    image = whole_image(sample, context.config.cams.max_side)
    if sample.tags:
        with autocast(device, choose_precision(context.config.run, device)):
            features = block_features(network, image.to(device), scale=context.config.cams.propagate_scale)
        cells = cell_features([features[block - 1] for block in context.config.cams.cells])
        scores = classifier.scores(cells)[[tag + 1 for tag in sample.tags]].clamp(min=0)
        cams = torch.from_numpy(arrays["maps"]).to(device).float()
        found = scores.flatten(1).amax(1)[:, None, None] > 0
        maps = divided(on_grid(_spread(context, divided(scores), features), cams.shape[1:]))
        maps = torch.where(found, maps, cams)
        arrays["maps"] = maps.cpu().numpy().astype(np.float16)
    return {**arrays, "colour_information": _colour_information(image, arrays["maps"])}


def _views(
    context: Context, network: PlainNetwork | MultiExitNetwork, image: torch.Tensor, sample: Sample
) -> CamViews:
    config = context.config.cams
    with autocast(image.device, choose_precision(context.config.run, image.device)):
        return class_activation_views(
            network,
            image,
            sample.tags,
            scales=config.scales,
            flip=config.flip,
            pool=context.config.classify.pool,
            exits=config.exits,
            fusion=config.fusion,
            exit_weight=config.exit_weight,
            features_at=config.propagate_scale if config.propagate or config.cells else None,
        )


def _seed(context: Context, views: CamViews) -> torch.Tensor:
    """(K, h, w) in [0, 1] on the CAM grid."""
    cams = views.cams()
    return divided(on_grid(_spread(context, cams, views.features), cams.shape[1:]))


def _spread(context: Context, cams: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
    """(K, h, w) CAMs, on some grid spread over cells that look alike if that is wanted."""
    config = context.config.cams
    if not config.propagate or not len(cams):
        return cams
    chosen = [features[block - 1] for block in sorted(config.propagate)]
    return propagate(cams, chosen, power=config.propagate_power, steps=config.propagate_steps)


def _arrays(sample: Sample, image: torch.Tensor, views: CamViews, cams: torch.Tensor) -> Arrays:
    maps = cams.cpu().numpy().astype(np.float16)
    return {
        "maps": maps,
        "classes": np.asarray(sample.tags, dtype=np.uint8),
        "confidence": views.logits.sigmoid().mean(0).cpu().numpy().astype(np.float16),
        "agreement": _agreement(views),
        "colour_information": _colour_information(image, maps),
    }


def _colour_information(image: torch.Tensor, maps: NDArray[np.float16]) -> NDArray[np.float16]:
    pixels = np.asarray((image.permute(1, 2, 0) * 255).round().byte().numpy())
    small = resize_image(pixels, (maps.shape[1], maps.shape[2]))
    return colour_information_curve(small, maps).astype(np.float16)


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
