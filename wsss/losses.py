"""Self-Regulation losses as pure functions (MEA, SR-F, SR-L), and the terms that a configuration switches on.

Source: D. Zhang, H. Zhang, J. Tang, X.-S. Hua, Q. Sun, *Self-Regulation for Semantic Segmentation*,
ICCV 2021, arXiv 2108.09702. Total: ``L = lambda1 L_cls + lambda2 L_seg + lambda3 (L_SR-L + L_SR-F)``.

Shapes: ``B`` batch, ``C`` classes, ``h w`` map, ``H W`` labels. Lists run over exits, shallowest first; the
last is the deepest exit. All losses are computed in float32 whatever the inputs' precision, and sums over
exits are divided by their number, so that depth does not change the balance.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss import IGNORE
from wsss.config import SegmentConfig, TrainConfig
from wsss.model.multi_exit import ExitOutputs


def pooled_scores(class_map: Tensor, pool: Literal["mean", "max", "lse"] = "mean") -> Tensor:
    """Image-level scores ``c_k = pool(Z_k)``.

    Args:
        class_map: (B, C, h, w) logits.
        pool: ``mean`` (global average, the CAM classifier's), ``max``, or ``lse``: log-mean-exp, between the
            two (Pinheiro and Collobert, CVPR 2015), which lets a small object name its class.

    Returns:
        (B, C) float32 logits.
    """
    flat = class_map.float().flatten(2)  # (B, C, h*w)
    if pool == "mean":
        return flat.mean(2)
    if pool == "max":
        return flat.amax(2)
    positions = torch.tensor(float(flat.shape[2]), device=flat.device)
    return torch.logsumexp(flat, 2) - positions.log()


def classification_loss(scores: Sequence[Tensor], tags: Tensor, *, weight_exits: float = 1.0) -> Tensor:
    """MEA, image level: multi-label soft-margin loss, the mean over exits of L_mlc(c_k, y).

    Args:
        scores: per exit (B, C) logits.
        tags: (B, C), 1 where the image's tags name the class.
        weight_exits: of every exit but the last in the mean; 1 as published (compare the auxiliary losses of
            GoogLeNet, Szegedy et al., CVPR 2015, 0.3, and PSPNet, Zhao et al., CVPR 2017, 0.4).

    Returns:
        Scalar float32.
    """
    target = tags.float()
    losses = [F.binary_cross_entropy_with_logits(score.float(), target) for score in scores]
    return _over_exits(losses, weight_exits)


def segmentation_loss(
    class_maps: Sequence[Tensor],
    labels: Tensor,
    *,
    weight_exits: float = 1.0,
    label_weights: Tensor | None = None,
) -> Tensor:
    """MEA, pixel level: the mean over exits of CE(Z_k upsampled bilinearly to the labels' grid, Y); 255 is ignored.

    Args:
        class_maps: per exit (B, C, h, w) logits, background being class 0.
        labels: (B, H, W) integers, 0..C-1 or 255.
        weight_exits: as in `classification_loss`.
        label_weights: (C,) factor on the cross-entropy of a pixel with that label; None: 1.

    Returns:
        Scalar float32; 0 (with zero gradients) where no pixel is labelled.
    """
    target = labels.long()
    counted = (target != IGNORE).sum().clamp(min=1)
    with torch.autocast(target.device.type, enabled=False):
        losses = [
            _upsampled_cross_entropy(single.float(), target, label_weights) / counted for single in class_maps
        ]
    return _over_exits(losses, weight_exits)


def self_regulation_f(
    maps: Sequence[Tensor],
    present: Tensor,
    *,
    tau: float,
    axis: Literal["space", "class"] = "space",
    mode: Literal["soft", "released"] = "soft",
    teacher: Literal["shallowest", "previous", "mean"] = "shallowest",
    scaling: bool = True,
) -> Tensor:
    """SR-F: the shallowest map T = Z_1 teaches detail to every deeper map S_i.

    ``L_F^i = -(1/M) sum_j t'_j log s'_j`` with ``t' = softmax(T / tau)`` and ``s' = softmax(S_i / tau)``, times
    tau^2 (Hinton 2015) so that the gradient's size does not depend on tau; then the mean over i. Teacher and
    student meet on the coarser of their grids by average pooling; nothing is upsampled. The teacher gets no
    gradient.

    Args:
        maps: per exit (B, C, h_k, w_k), class maps or projected feature maps; at least one.
        present: (B, C), nonzero where a channel of an image counts; used by ``axis="space"`` alone.
        tau: temperature, > 0.
        axis: ``space``: t' and s' are distributions over the M positions, one per present class, and the loss
            is the mean over present (image, class) pairs (compare channel-wise distillation, Shu et al., ICCV
            2021); ``class``: distributions over the C classes at each of the M positions.
        mode: ``soft`` as above; ``released``: the hard cross-entropy to argmax(Z_1) over classes of the
            authors' code. With a label loss it makes deep exits copy the stem: for comparison only.
        teacher: ``shallowest`` as above; ``previous``: each map is taught by the next shallower one (compare
            self attention distillation, Hou et al., ICCV 2019, in the other direction); ``mean``: the mean of all
            maps, on the coarsest grid, teaches every map (an ensemble of the exits).
        scaling: multiply by tau^2; ``released`` has no tau.

    Returns:
        Scalar float32; 0 for a single exit or when nothing is present.
    """
    losses = [
        _released_f(source, student)
        if mode == "released"
        else (tau**2 if scaling else 1.0) * _soft_f(source, student, present, tau, axis)
        for source, student in _lessons_f([single.float() for single in maps], teacher)
    ]
    return torch.stack(losses).mean() if losses else maps[0].new_zeros((), dtype=torch.float32)


def self_regulation_l(
    scores: Sequence[Tensor],
    *,
    tau: float,
    activation: Literal["sigmoid", "softmax"] = "sigmoid",
    teacher: Literal["deepest", "next", "mean"] = "deepest",
    scaling: bool = True,
) -> Tensor:
    """SR-L: the deepest exit's image-level scores teach semantics to the shallower exits.

    ``L_SR-L = mean_{k<N} CE(p(c_N / tau), p(c_k / tau))``, times tau^2. The teacher gets no gradient.

    Args:
        scores: per exit (B, C) logits; at least one.
        tau: temperature, > 0.
        activation: ``sigmoid``: a binary cross-entropy per class (tags are not exclusive), mean over classes;
            ``softmax``: the classes of an image as one distribution.
        teacher: ``deepest`` as above; ``next``: each exit is taught by the next deeper one; ``mean``: the mean
            of all scores teaches every exit (Phuong and Lampert, ICCV 2019, compare teachers of multi-exit networks).
        scaling: multiply by tau^2.

    Returns:
        Scalar float32; 0 for a single exit.
    """
    losses = []
    for source, student in _lessons_l([score.float() / tau for score in scores], teacher):
        if activation == "sigmoid":
            losses.append(F.binary_cross_entropy_with_logits(student, source.sigmoid()))
        else:
            losses.append(F.cross_entropy(student, source.softmax(1)))
    if not losses:
        return scores[0].new_zeros((), dtype=torch.float32)
    return (tau**2 if scaling else 1.0) * torch.stack(losses).mean()


def sr_strength(progress: float, *, start: float, ramp: float) -> float:
    """The schedule's factor on both SR losses: 0 before ``start``, then 1 or a linear rise over ``ramp``.

    Args:
        progress: share of all training steps already done, in [0, 1).
        start: share before which MEA trains alone (published: a quarter).
        ramp: share over which the factor rises; 0 for a switch.
    """
    if progress < start:
        return 0.0
    return 1.0 if ramp == 0 else min(1.0, (progress - start) / ramp)


def loss_terms(
    outputs: ExitOutputs,
    tags: Tensor,
    labels: Tensor | None,
    config: TrainConfig,
    progress: float,
    label_weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of L = lambda1 L_cls + lambda2 L_seg + lambda3 (L_SR-L + L_SR-F).

    A term whose weight is zero, or that has fewer than two exits to work on, is not computed, so it leaves no trace
    in any gradient. In a U-shape SR-F acts on the encoder's exits and SR-L on the decoder's.

    Args:
        outputs: of the multi-exit network; with labels, channel 0 of the class maps is background.
        tags: (B, C), 1 where the image's tags name the class.
        labels: (B, H, W) pixel labels with 255; None for the classification network.
        config: weights, temperatures and schedule of the stage; a `SegmentConfig` where there are labels.
        progress: share of training done, in [0, 1).
        label_weights: see `segmentation_loss`.

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
        loss = classification_loss(scores[learning], tags, weight_exits=config.weight_exits)
        terms["cls"] = config.weight_cls * loss
    if labels is not None and isinstance(config, SegmentConfig) and config.weight_seg:
        loss = segmentation_loss(
            maps[learning], labels, weight_exits=config.weight_exits, label_weights=label_weights
        )
        terms["seg"] = config.weight_seg * loss
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


def term_counts(tags: Tensor, labels: Tensor | None, config: TrainConfig) -> dict[str, Tensor]:
    """What each term of `loss_terms` is a mean over: images, labelled pixels, or present (image, class) pairs.

    The term of a batch is the mean of its parts' terms, weighted by these counts.

    Args:
        tags: (B, C), 1 where the image's tags name the class.
        labels: (B, H, W) with 255, or None.
        config: decides what SR-F is a mean over.

    Returns:
        Scalars float32 by term name.
    """
    images = torch.tensor(float(len(tags)), device=tags.device)
    pixels = images.new_zeros(()) if labels is None else (labels != IGNORE).sum().float()
    if config.sr_axis == "class" or config.sr_mode == "released":
        taught = images
    else:
        taught = (tags.any(1) if config.sr_maps == "features" else tags).count_nonzero().float()
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


def _over_exits(losses: list[Tensor], weight: float) -> Tensor:
    """The mean in which the last exit counts once and every other ``weight`` times."""
    if weight == 1:
        return torch.stack(losses).mean()
    *others, last = losses
    return (last + weight * sum(others, last.new_zeros(()))) / (1 + weight * len(others))


def _upsampled_cross_entropy(maps: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """(B, C, h, w) float32 logits, (B, H, W) int64 -> the sum over labelled pixels of CE(upsampled maps, target).

    One image at a time, whose pixels stay in a CPU's cache, and bilinear upsampling as two matrix products: on a CPU
    that takes a third of the time of `F.interpolate` on the whole batch.
    """
    height, width = (
        F.interpolate(torch.eye(cells, device=maps.device)[None], pixels, mode="linear")[0]  # (h, H), (w, W)
        for cells, pixels in zip(maps.shape[2:], target.shape[1:], strict=True)
    )
    images = zip(maps.contiguous().chunk(len(maps)), target.chunk(len(maps)), strict=True)
    sums = [
        F.cross_entropy(height.t() @ logits @ width, labels, weights, ignore_index=IGNORE, reduction="sum")
        for logits, labels in images
    ]
    return torch.stack(sums).sum()


def _lessons_f(maps: list[Tensor], teacher: str) -> list[tuple[Tensor, Tensor]]:
    """(teacher without gradient, student) pairs of SR-F; none for a single exit."""
    if teacher == "shallowest":
        return [(maps[0].detach(), student) for student in maps[1:]]
    if teacher == "previous":
        return [(before.detach(), student) for before, student in itertools.pairwise(maps)]
    grid = (min(single.shape[2] for single in maps), min(single.shape[3] for single in maps))
    mean = torch.stack([_pooled(single.detach(), grid) for single in maps]).mean(0)
    return [(mean, student) for student in maps] if len(maps) > 1 else []


def _lessons_l(scores: list[Tensor], teacher: str) -> list[tuple[Tensor, Tensor]]:
    """(teacher without gradient, student) pairs of SR-L; none for a single exit."""
    if teacher == "deepest":
        return [(scores[-1].detach(), student) for student in scores[:-1]]
    if teacher == "next":
        return [(after.detach(), student) for student, after in itertools.pairwise(scores)]
    mean = torch.stack([score.detach() for score in scores]).mean(0)
    return [(mean, student) for student in scores] if len(scores) > 1 else []


def _soft_f(teacher: Tensor, student: Tensor, present: Tensor, tau: float, axis: str) -> Tensor:
    teacher, student = _on_one_grid(teacher, student)
    positions = teacher.shape[2] * teacher.shape[3]
    dim = 2 if axis == "space" else 1
    target = (teacher.flatten(2) / tau).softmax(dim)  # (B, C, M)
    cross = -(target * (student.flatten(2) / tau).log_softmax(dim))
    if axis == "class":
        return cross.sum(1).mean()
    counts = (present != 0).float()
    return (cross.sum(2) / positions * counts).sum() / counts.sum().clamp(min=1)


def _released_f(teacher: Tensor, student: Tensor) -> Tensor:
    teacher, student = _on_one_grid(teacher, student)
    return F.cross_entropy(student, teacher.argmax(1))


def _on_one_grid(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool both maps to the coarser of their grids."""
    grid = (min(teacher.shape[2], student.shape[2]), min(teacher.shape[3], student.shape[3]))
    return _pooled(teacher, grid), _pooled(student, grid)


def _pooled(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == grid else F.adaptive_avg_pool2d(maps, grid)
