"""Stage 4: train the multi-exit segmentation network on pseudo-masks, or on ground truth (the upper bound).

Writes ``network/*`` (the deployed network), ``exits/*``, and per validation image and per image of the overview
``predictions`` (H, W) uint8 at the photograph's size.
"""

from collections.abc import Iterator

import numpy as np
import torch

from data import Sample
from data.loading import MaskSource, PseudoMasks, TruthMasks, whole_image
from stages.context import Context
from stages.fitting import fit, network_groups
from stages.selection import overview_samples
from wsss.artifacts import Arrays, Artifact, write_artifact
from wsss.config import SegmentConfig
from wsss.device import autocast, choose_device, choose_precision
from wsss.errors import UserError, listed
from wsss.interrupt import check
from wsss.networks import PlainNetwork
from wsss.predict import label_probabilities
from wsss.progress import progress_bar
from wsss.resize import resize_labels


def compute(context: Context) -> None:
    """Train, predict the validation split and write the artifact."""
    config = context.config.segment
    training = context.data.split(context.config.data.train_split)
    network = fit(
        context,
        config,
        samples=training,
        masks=_mask_source(context, training.samples),
        weight_seg=config.weight_seg,
    )
    predicted = [
        *context.data.split(context.config.data.val_split).samples,
        *overview_samples(training),
    ]
    images = _predictions(context, network.deploy(), predicted, config)
    write_artifact(context.output, context.stamp, groups=network_groups(network), images=images)


def _mask_source(context: Context, samples: tuple[Sample, ...]) -> MaskSource:
    if context.config.segment.supervision == "pseudo":
        return PseudoMasks(Artifact(context.inputs["refine"]))
    missing = [sample.id for sample in samples if sample.mask is None]
    if missing:
        raise UserError(
            f"segment.supervision = 'full': {len(missing)} training images have no mask ({listed(missing, ', ')}); "
            "add their masks, or use segment.supervision=pseudo"
        )
    return TruthMasks()


def _predictions(
    context: Context, network: PlainNetwork, samples: list[Sample], config: SegmentConfig
) -> Iterator[tuple[str, Arrays]]:
    device = choose_device(context.config.run.device)
    precision = choose_precision(context.config.run, device)
    with progress_bar(len(samples), "predict", "img") as bar:
        for sample in samples:
            check()
            image = whole_image(sample, config.max_side).to(device)
            with autocast(device, precision), torch.inference_mode():
                probability = label_probabilities(
                    network, image, scales=config.test_scales, flip=config.test_flip
                )
            labels = probability.argmax(0).to(torch.uint8).cpu().numpy()
            yield sample.id, {"predictions": resize_labels(np.ascontiguousarray(labels), sample.size)}
            bar.update()
