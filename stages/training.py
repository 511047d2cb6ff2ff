"""What both training stages share: build a multi-exit network, train it, write and read its artifact."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data import Dataset
from data.loading import MaskSource, TrainingViews, training_batches
from stages import Context
from wsss.config import CamsConfig, RunConfig, SegmentConfig, TrainConfig
from wsss.errors import UserError
from wsss.model.backbone import Backbone, create_backbone
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork, folded, plain_network
from wsss.runtime.device import choose_device, choose_precision
from wsss.runtime.pool import loader_workers
from wsss.store.artifacts import Artifact, DamagedArtifactError, checkpoint_of
from wsss.train import Training, load_arrays, state_arrays, steps_in_epoch, train


def fit(
    context: Context,
    config: TrainConfig,
    *,
    samples: Dataset,
    masks: MaskSource | None,
    label_weights: Tensor | None = None,
) -> MultiExitNetwork:
    """Build the stage's network with its exits and train it, going on from a checkpoint if there is one."""
    stage = context.stamp.stage
    torch.manual_seed(context.config.seed)
    network = training_network(config, len(samples.classes), stage)
    device = choose_device(context.config.run.device)
    views = TrainingViews(samples.samples, len(samples.classes), config, context.config.seed, masks)
    per_epoch = steps_in_epoch(len(views), config.batch)
    steps = per_epoch * config.epochs
    workers = loader_workers(context.config.run, accelerator=device.type != "cpu")
    job = Training(
        config=config,
        steps=steps,
        steps_per_epoch=per_epoch,
        batches=lambda first: training_batches(views, first, steps, workers),
        checkpoint=checkpoint_of(context.output),
        stamp=context.stamp,
        log=lambda means: context.log({"stage": stage, **means}),
        compile=context.config.run.compile,
        label_weights=label_weights,
    )
    train(network, job, device=device, precision=choose_precision(context.config.run, device))
    return network


def check_training(config: TrainConfig, stage: str, run: RunConfig) -> list[str]:
    """Find out now, not after hours of other stages, whether a training stage's network can be built.

    Returns:
        Notes on loss terms that have nothing to do, and on what of a weight file was used.

    Raises:
        UserError: device, backbone, weights, frozen blocks or exits will not do.
    """
    choose_device(run.device)
    network = training_network(config, 1, stage)
    encoder, decoder = network.sides
    exits = [*network.blocks, len(network.plain.channels) - 1]
    taught = {
        "MEA": exits[:-1] if config.mea else [],
        "SR-F": exits[encoder][1:] if config.weight_sr_f else [],
        "SR-L": exits[decoder][:-1] if config.weight_sr_l else [],
    }
    # An exit is not deployed: a term reaches what is through the head, or through blocks that learn.
    idle = [
        name
        for name, blocks in taught.items()
        if blocks and exits[-1] not in blocks and max(blocks) < config.frozen_blocks
    ]
    fitted = network.plain.backbone.fitted
    notes = [f"{stage}: {fitted}"] if fitted else []
    if idle:
        notes.append(
            f"{stage}.frozen_blocks = {config.frozen_blocks}: {' and '.join(idle)} train exits of frozen blocks alone, "
            "nothing of the network that is deployed"
        )
    if taught["SR-F"] and not config.mea and config.sr_f_teacher == "shallowest":
        notes.append(
            f"{stage}.mea = false: nothing trains the exit that teaches SR-F; set {stage}.weight_sr_f=0"
        )
    return notes


def training_network(config: TrainConfig, classes: int, stage: str) -> MultiExitNetwork:
    """The network that a training stage trains: the plain one, with the exits that its losses use.

    Raises:
        UserError: backbone, weights, frozen blocks or exits will not do; the message names the stage's key.
    """
    plain = plain_network(config, classes, _backbone(config, stage))
    depth = len(plain.channels)
    segment = config if isinstance(config, SegmentConfig) else None
    used = config.mea or config.weight_sr_f or config.weight_sr_l or (segment and segment.weight_sr_p)
    detail_block = segment.detail_block if segment and segment.weight_detail else 0
    if detail_block > len(plain.backbone.channels):
        raise UserError(
            f"{stage}.detail_block = {detail_block}: expected at most {len(plain.backbone.channels)}"
        )
    try:
        return MultiExitNetwork(
            plain,
            classes=classes + (segment is not None),
            exits=config.exits if used else (depth,),
            width=config.exit_channels,
            project=config.sr_maps == "features" and config.weight_sr_f > 0,
            tag_layers=classes if segment and segment.tag_layer else 0,
            detail_block=detail_block,
        )
    except ValueError as error:
        raise UserError(f"{stage}.exits: {error}") from None


def network_groups(network: MultiExitNetwork) -> dict[str, Mapping[str, NDArray[np.generic]]]:
    """A trained network as artifact groups: ``network`` is what is deployed, ``exits`` the rest."""
    deployed = state_arrays(network.plain)
    everything = state_arrays(network)
    exits = {name: array for name, array in everything.items() if not name.startswith("plain.")}
    return {"network": deployed, "exits": exits}


def load_deployed(path: Path, config: TrainConfig, classes: int, device: torch.device) -> PlainNetwork:
    """The deployed network of a training stage's artifact, ready for inference on the device: BatchNorm is folded."""
    backbone = create_backbone(config.backbone, weights="none", output_stride=config.output_stride)
    network = plain_network(config, classes, backbone)
    artifact = Artifact(path)
    _load(network, artifact.group("network"), artifact)
    network = folded(network.eval())
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def load_multi_exit(path: Path, config: TrainConfig, classes: int, device: torch.device) -> MultiExitNetwork:
    """The whole network of a training stage's artifact, in evaluation mode on the device."""
    artifact = Artifact(path)
    network = training_network(replace(config, weights="none"), classes, artifact.stage)
    deployed = {f"plain.{name}": array for name, array in artifact.group("network").items()}
    _load(network, deployed | artifact.group("exits"), artifact)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


def _load(network: nn.Module, arrays: dict[str, NDArray[Any]], artifact: Artifact) -> None:
    try:
        load_arrays(network, arrays)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedArtifactError(
            f"{artifact.path}: its arrays are not those of the network ({reason})"
        ) from None
    finally:
        artifact.close()


def check_cam_exits(cams: CamsConfig, classify: TrainConfig) -> None:
    """Find out whether the classification network has what the fusion and the spreading of CAMs want.

    Raises:
        UserError: a named block is not there or has no exit, or the exits learn nothing.
    """
    if not (cams.exits or cams.propagate or cams.cells):
        return
    network = training_network(replace(classify, weights="none"), 1, "classify")
    depth = len(network.plain.backbone.channels)
    for key, blocks in (("propagate", cams.propagate), ("cells", cams.cells)):
        if any(block > depth for block in blocks):
            raise UserError(
                f"cams.{key} = {list(blocks)}: expected blocks from 1 to {depth} of {classify.backbone}"
            )
    if not cams.exits:
        return
    if not classify.mea:
        raise UserError(
            f"cams.exits = {list(cams.exits)}: the exits learn nothing with classify.mea = false; expected "
            "classify.mea=true, or cams.exits=[] for the deepest alone"
        )
    known = [block + 1 for block in network.blocks]
    if not set(cams.exits) <= set(known):
        raise UserError(
            f"cams.exits = {list(cams.exits)}: expected blocks with an exit (the deepest is always part), which "
            f"classify.exits = {list(classify.exits)} makes {known}; name these alone, or change classify.exits"
        )


def _backbone(config: TrainConfig, stage: str) -> Backbone:
    try:
        backbone = create_backbone(
            config.backbone, weights=config.weights, output_stride=config.output_stride
        )
    except UserError as error:
        raise UserError(f"[{stage}]: {error}") from None
    if config.frozen_blocks > len(backbone.ends):
        raise UserError(
            f"{stage}.frozen_blocks = {config.frozen_blocks}: expected at most {len(backbone.ends)}"
        )
    if config.frozen_blocks and backbone.parallel:
        raise UserError(
            f"{stage}.frozen_blocks = {config.frozen_blocks}: the branches of {config.backbone} run side by side to "
            "the end, so that none can be frozen alone; expected 0"
        )
    return backbone
