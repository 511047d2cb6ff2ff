"""Stage 4: train the multi-exit segmentation network on pseudo-masks, or on ground truth (the upper bound).

Writes ``network/*`` (the deployed network), ``exits/*``, ``predicting_exits/blocks`` (E,) uint8, the blocks (1 =
shallowest) whose exits have learned beside the deepest, E = 0 without MEA, and per validation image and per image of
the overview ``predictions`` (H, W) uint8 at the image's size, the deployed network's. Validation images have
``exit_predictions`` (E, H, W) uint8 too, if E > 0: what each of those exits says by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data import Sample, overview_samples
from data.loading import MaskSource, ground_truth, pseudo_mask, whole_image
from stages import Context
from stages.training import fit, network_groups
from wsss.cams import exit_probabilities, label_probabilities
from wsss.errors import UserError, listed
from wsss.metrics.confusion import label_pixels
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork, folded
from wsss.resize import resize_labels
from wsss.runtime.device import autocast, choose_device, choose_precision
from wsss.runtime.interrupt import check
from wsss.runtime.pool import progress_bar
from wsss.store.artifacts import Arrays, Artifact, write_sharded


def compute(context: Context) -> None:
    """Train, predict the validation split and write the artifact."""
    config = context.config.segment
    training = context.data.split(context.config.data.train_split)
    masks = _mask_source(context, training.samples)
    weights = None
    if config.class_weights == "root":
        counts = np.sum([label_pixels(masks(sample)) for sample in training.samples], axis=0)
        weights = torch.from_numpy(root_weights(counts[: len(training.classes) + 1])).float()
    again = [sample for sample in training.samples if sample.correction] * (config.correction_weight - 1)
    learned = replace(training, samples=(*training.samples, *again))
    network = fit(context, config, samples=learned, masks=masks, label_weights=weights)
    predicted = [
        *context.data.split(context.config.data.val_split).samples,
        *overview_samples(training),
    ]
    blocks = [block + 1 for block in network.blocks] if config.mea else []
    groups = network_groups(network) | {"predicting_exits": {"blocks": np.asarray(blocks, np.uint8)}}
    samples = {sample.id: sample for sample in predicted}
    predict = partial(_predicted, context, network.eval(), folded(network.deploy()), exits=bool(blocks))

    def produce(ids: Sequence[str]) -> Iterator[Arrays]:
        for image_id in ids:
            check()
            yield predict(samples[image_id])

    with progress_bar(len(samples), "predict", "img") as bar:
        write_sharded(
            context.output,
            context.stamp,
            list(samples),
            produce,
            groups=lambda _: groups,
            done=bar.update,
        )


def root_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(L,) training pixels of each label -> (L,) weights: one over the root of the label's share, mean 1 over pixels.

    The root is between no weights, which let a label of 0.1 % of the pixels vanish, and the full inverse, which lets it
    flood the image (compare Mahajan et al., ECCV 2018, section 2.2). A label without pixels is never used.
    """
    shares = counts / max(1, counts.sum())
    roots = np.zeros(len(counts))
    np.divide(1, np.sqrt(shares), where=shares > 0, out=roots)
    return np.asarray(roots / max(float((roots * shares).sum()), 1e-12))


def _mask_source(context: Context, samples: Sequence[Sample]) -> MaskSource:
    if context.config.segment.supervision == "pseudo":
        return partial(pseudo_mask, Artifact(context.inputs["refine"]))
    missing = [sample.id for sample in samples if sample.mask is None]
    if missing:
        raise UserError(
            f"segment.supervision = 'full': {len(missing)} training images have no mask ({listed(missing, ', ')}); "
            "add their masks, or use segment.supervision=pseudo"
        )
    return ground_truth


def _predicted(
    context: Context, network: MultiExitNetwork, deployed: PlainNetwork, sample: Sample, *, exits: bool
) -> Arrays:
    """What the deployed network says about an image, and with ``exits`` what each exit does about validation."""
    config = context.config.segment
    device = choose_device(context.config.run.device)
    image = whole_image(sample, config.max_side).to(device)
    scales, flip = config.test_scales, config.test_flip
    with autocast(device, choose_precision(context.config.run, device)), torch.inference_mode():
        probability = label_probabilities(deployed, image, scales=scales, flip=flip)
        arrays = {"predictions": _labels(probability, sample)}
        if exits and sample.split == context.config.data.val_split:
            found = exit_probabilities(network, image, scales=scales, flip=flip)
            arrays["exit_predictions"] = np.stack([_labels(each, sample) for each in found])
    return arrays


def _labels(probability: Tensor, sample: Sample) -> NDArray[np.uint8]:
    """(L, h, w) probabilities -> (H, W) the most probable labels at the image's size."""
    labels = probability.argmax(0).to(torch.uint8).cpu().numpy()
    return resize_labels(np.ascontiguousarray(labels), sample.size)
