"""Training steps and predictions on made-up images, to be timed: the work of `wsss.train` without its data."""

from collections.abc import Callable

import torch
from torch import Tensor

from wsss.config import SegmentConfig, TrainConfig
from wsss.depthwise import quick_depthwise
from wsss.device import autocast
from wsss.losses import IGNORE
from wsss.networks import MultiExitNetwork, PlainNetwork
from wsss.objective import loss_terms
from wsss.train import Batch, make_optimizer, set_learning_rate, set_training

PROGRESS = 1 - 1e-6
"""Share of the training that is done: any schedule of self-regulation has started, unless it never does."""
UNLABELLED = 0.1
"""Share of rows of the made-up labels that is 255."""


def made_up_batch(config: TrainConfig, classes: int, *, device: torch.device, seed: int = 0) -> Batch:
    """Noise of the configured crop and batch, with C foreground classes in its tags, and in labels to segment by."""
    generator = torch.Generator().manual_seed(seed)
    B, side = config.batch, config.crop
    images = torch.rand(B, 3, side, side, generator=generator)
    tags = torch.rand(B, classes, generator=generator) < 0.2
    tags[torch.arange(B), torch.randint(0, classes, (B,), generator=generator)] = True
    labels = torch.randint(0, classes + 1, (B, side, side), dtype=torch.uint8, generator=generator)
    labels[:, : round(UNLABELLED * side)] = IGNORE
    return Batch(
        ids=[str(index) for index in range(B)],
        images=images.to(device).contiguous(memory_format=torch.channels_last),
        tags=tags.float().to(device),
        labels=labels.to(device) if isinstance(config, SegmentConfig) else None,
    )


def training_step(
    network: MultiExitNetwork,
    batch: Batch,
    config: TrainConfig,
    *,
    weight_seg: float,
    device: torch.device,
    precision: torch.dtype,
) -> Callable[[], None]:
    """Put the network in training as `wsss.train.train` does; what is returned makes one step, self-regulation on.

    Args:
        network: is moved to the device and trained, at the learning rate of the schedule's very end.
        batch: on the device, its images in channels_last.
        config: loss terms, optimiser and what is frozen.
        weight_seg: lambda2.
        device: where it is computed.
        precision: of the forward pass.
    """
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_training(network, freeze_bn=config.freeze_bn, frozen_blocks=config.frozen_blocks)
    optimizer = make_optimizer(network, config)
    set_learning_rate(optimizer, config, PROGRESS)

    def step() -> None:
        with autocast(device, precision), quick_depthwise(device):
            outputs = network(batch.images)
        terms = loss_terms(
            outputs, batch.tags, batch.labels, config=config, weight_seg=weight_seg, progress=PROGRESS
        )
        loss = torch.stack(list(terms.values())).sum()
        float(loss.detach())  # training looks at it at every step, which an accelerator has to wait for
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def prediction(
    network: PlainNetwork, images: Tensor, *, device: torch.device, precision: torch.dtype
) -> Callable[[], None]:
    """What is returned runs the deployed network on images (B, 3, H, W) that are on the device."""
    network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def predict() -> None:
        with torch.inference_mode(), autocast(device, precision):
            network(images)

    return predict
