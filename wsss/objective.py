"""The training objective: which loss terms a configuration switches on, and their weights."""

import torch
from torch import Tensor

from wsss import processes
from wsss.config import TrainConfig
from wsss.losses import (
    IGNORE,
    classification_loss,
    pooled_scores,
    segmentation_loss,
    self_regulation_f,
    self_regulation_l,
    sr_strength,
)
from wsss.networks import ExitOutputs


def loss_terms(
    outputs: ExitOutputs,
    tags: Tensor,
    labels: Tensor | None,
    *,
    config: TrainConfig,
    weight_seg: float,
    progress: float,
) -> dict[str, Tensor]:
    """The weighted terms of L = lambda1 L_cls + lambda2 L_seg + lambda3 (L_SR-L + L_SR-F).

    A term whose weight is zero, or that has fewer than two exits to work on, is not computed, so it leaves no trace
    in any gradient. In a U-shape SR-F acts on the encoder's exits and SR-L on the decoder's.

    Args:
        outputs: of the multi-exit network; with labels, channel 0 of the class maps is background.
        tags: (B, C), 1 where the image's tags name the class.
        labels: (B, H, W) pixel labels with 255, or None for the classification network.
        config: weights, temperatures and schedule.
        weight_seg: lambda2; used with labels only.
        progress: share of training done, in [0, 1).

    Returns:
        Scalars by name (cls, seg, sr_f, sr_l); their sum is the loss.
    """
    maps = outputs.class_maps
    foreground = [single[:, 1:] for single in maps] if labels is not None else maps
    scores = [pooled_scores(single, config.pool) for single in foreground]
    learning = slice(None) if config.mea else slice(-1, None)
    strength = sr_strength(progress, start=config.sr_start, ramp=config.sr_ramp)
    terms: dict[str, Tensor] = {}
    if config.weight_cls:
        terms["cls"] = config.weight_cls * classification_loss(
            scores[learning], tags, weight_exits=config.weight_exits
        )
    if labels is not None and weight_seg:
        terms["seg"] = weight_seg * segmentation_loss(
            maps[learning], labels, weight_exits=config.weight_exits
        )
    if config.weight_sr_f and strength and len(maps[outputs.encoder]) > 1:
        terms["sr_f"] = config.weight_sr_f * strength * _sr_f(outputs, tags, config, foreground)
    if config.weight_sr_l and strength and len(maps[outputs.decoder]) > 1:
        regulation = self_regulation_l(
            scores[outputs.decoder],
            tau=config.tau_l,
            activation=config.sr_l_activation,
            teacher=config.sr_l_teacher,
            scaling=config.tau_scaling,
        )
        terms["sr_l"] = config.weight_sr_l * strength * regulation
    return terms


def shares(tags: Tensor, labels: Tensor | None, config: TrainConfig) -> dict[str, Tensor]:
    """This process's part of what each term is a mean over: one over the number of processes, or thereabouts.

    Terms times their shares, added up over all processes, are the terms of the whole batch.

    Args:
        tags: (B, C) of this process's images.
        labels: (B, H, W) with 255, or None.
        config: decides what SR-F is a mean over.

    Returns:
        Scalars in [0, 1] by term name.
    """
    images = torch.tensor(float(len(tags)), device=tags.device)
    pixels = images.new_zeros(()) if labels is None else (labels != IGNORE).sum().float()
    own = torch.stack([images, pixels, tags.count_nonzero().float(), tags.any(1).sum().float()])
    images, pixels, pairs, tagged = own / processes.total(own).clamp(min=1)
    in_space = config.sr_axis == "space" and config.sr_mode == "soft"
    taught = (tagged if config.sr_maps == "features" else pairs) if in_space else images
    return {"cls": images, "seg": pixels, "sr_f": taught, "sr_l": images}


def _sr_f(outputs: ExitOutputs, tags: Tensor, config: TrainConfig, foreground: list[Tensor]) -> Tensor:
    """SR-F on what the configuration names.

    Over positions: the maps of tagged classes, or every feature channel of an image with tags. Over classes:
    whole class vectors, background included.
    """
    if config.sr_maps == "features":
        maps = outputs.feature_maps
        present = tags.any(1, keepdim=True).expand(-1, maps[0].shape[1])
    else:
        maps = foreground if config.sr_axis == "space" and config.sr_mode == "soft" else outputs.class_maps
        present = tags
    return self_regulation_f(
        maps[outputs.encoder],
        present,
        tau=config.tau_f,
        axis=config.sr_axis,
        mode=config.sr_mode,
        teacher=config.sr_f_teacher,
        scaling=config.tau_scaling,
    )
