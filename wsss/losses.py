"""Self-Regulation losses as pure functions (MEA, SR-F, SR-L), and the terms that a configuration switches on.

Source: D. Zhang, H. Zhang, J. Tang, X.-S. Hua, Q. Sun, *Self-Regulation for Semantic Segmentation*,
ICCV 2021, arXiv 2108.09702. Total: ``L = lambda1 L_cls + lambda2 L_seg + lambda3 (L_SR-L + L_SR-F)``.

Shapes: ``B`` batch, ``C`` classes, ``h w`` map, ``H W`` labels. Lists run over exits, shallowest first; the
last is the deepest exit, the deployed head. All losses are computed in float32 whatever the inputs' precision. They
are sums over exits: the deployed head learns at its full rate, however many exits there are. What one exit teaches
another is given as a divergence, cross-entropy minus the teacher's entropy: zero means learned.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss import IGNORE
from wsss.config import SegmentConfig, TrainConfig
from wsss.model.multi_exit import ExitOutputs

WEIGHT_REGIONS = 0.4
"""Of the loss of an OCR head's coarse segmentation, as published."""
DETAIL_TAU = 0.1
"""Temperature of affinities, which lie in [0, 1]."""


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
    """MEA, image level: multi-label soft-margin loss, the sum over exits of L_mlc(c_k, y).

    Args:
        scores: per exit (B, C) logits.
        tags: (B, C), 1 where the image's tags name the class.
        weight_exits: of all exits but the last; 1 as published (compare the auxiliary losses of GoogLeNet, Szegedy et
            al., CVPR 2015, 0.3, and PSPNet, Zhao et al., CVPR 2017, 0.4).

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
    """MEA, pixel level: the sum over exits of CE(Z_k upsampled bilinearly to the labels' grid, Y); 255 is ignored.

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
    axis: Literal["class", "space"] = "class",
    mode: Literal["soft", "released"] = "soft",
    teacher: Literal["shallowest", "previous", "mean"] = "shallowest",
    scaling: bool = True,
    trust: Sequence[Tensor] | None = None,
    teaches: Sequence[bool] | None = None,
) -> Tensor:
    """SR-F: the shallowest map T = Z_1 teaches detail to every deeper map S_i.

    ``L_F^i = (1/M) sum_j KL(t'_j, s'_j)``, where ``t'_j = softmax(T_j / tau)`` and ``s'_j = softmax(S_ij / tau)`` are
    distributions over the channels at position j, times tau^2 (Hinton 2015) so that the gradient's size does not
    depend on tau; the sum over i. Teacher and student meet on the coarser of their grids by average pooling; nothing is
    upsampled. The teacher gets no gradient.

    Args:
        maps: per exit (B, C, h_k, w_k), class maps or projected feature maps; at least one.
        present: (B, C), nonzero where a channel of an image counts; used by ``axis="space"`` alone.
        tau: temperature, > 0.
        axis: ``class`` as above; ``space``: t' and s' are distributions over the M positions, one per present class,
            and L_F^i is the mean of their divergences over present (image, class) pairs, without 1/M (channel-wise
            distillation, Shu et al., ICCV 2021, arXiv 2011.13256).
        mode: ``soft`` as above; ``released``: the hard cross-entropy to argmax(Z_1) over classes of the
            authors' code. With a label loss it makes deep exits copy the stem: for comparison only.
        teacher: ``shallowest`` as above; ``previous``: each map is taught by the next shallower one (compare
            self attention distillation, Hou et al., ICCV 2019, in the other direction); ``mean``: the mean of all
            maps, on the coarsest grid, teaches every map (an ensemble of the exits).
        scaling: multiply by tau^2; ``released`` has no tau.
        trust: per exit (B, h_k, w_k) in [0, 1], how much its word counts at a position; None: 1. Not of ``space``.
        teaches: per exit whether it teaches yet; None: all do.

    Returns:
        Scalar float32; 0 where nobody is taught or nothing is present.
    """
    total = maps[0].new_zeros((), dtype=torch.float32)
    for teachers, student in lessons(len(maps), teacher, teaches):
        height, width = (min(maps[index].shape[side] for index in (*teachers, student)) for side in (2, 3))
        grid = (height, width)
        source = torch.stack([_pooled(maps[index].detach(), grid) for index in teachers]).mean(0)
        own = _pooled(maps[student], grid)
        if axis == "space" and mode == "soft":
            counts = (present != 0).float()
            each = _divergence(source.flatten(2) / tau, own.flatten(2) / tau, 2)  # (B, C)
            loss = (each * counts).sum() / counts.sum().clamp(min=1)
        else:
            weight: Tensor | float = 1.0
            if trust is not None:
                weight = torch.stack([_pooled(trust[k][:, None], grid)[:, 0] for k in teachers]).mean(0)
            if mode == "released":
                each = F.cross_entropy(own, source.argmax(1), reduction="none")
            else:
                each = _divergence(source / tau, own / tau, 1)
            loss = (weight * each).mean()
        total = total + (tau**2 if scaling and mode == "soft" else 1.0) * loss
    return total


def self_regulation_l(
    scores: Sequence[Tensor],
    *,
    tau: float,
    activation: Literal["sigmoid", "softmax"] = "sigmoid",
    teacher: Literal["deepest", "next", "mean"] = "deepest",
    scaling: bool = True,
    teaches: Sequence[bool] | None = None,
) -> Tensor:
    """SR-L: the deepest exit's image-level scores teach semantics to the shallower exits.

    ``L_SR-L = sum_{k<N} KL(p(c_N / tau), p(c_k / tau))``, times tau^2. The teacher gets no gradient.

    Args:
        scores: per exit (B, C) logits; at least one.
        tau: temperature, > 0.
        activation: ``sigmoid``: a divergence per class (tags are not exclusive), mean over classes; ``softmax``: the
            classes of an image as one distribution.
        teacher: ``deepest`` as above; ``next``: each exit is taught by the next deeper one; ``mean``: the mean
            of all scores teaches every exit (Phuong and Lampert, ICCV 2019, compare teachers of multi-exit networks).
        scaling: multiply by tau^2.
        teaches: per exit whether it teaches yet; None: all do.

    Returns:
        Scalar float32; 0 where nobody is taught.
    """
    deepest_first = [score.float() / tau for score in reversed(scores)]
    total = scores[0].new_zeros((), dtype=torch.float32)
    for teachers, student in lessons(len(scores), teacher, teaches and teaches[::-1]):
        source = torch.stack([deepest_first[index].detach() for index in teachers]).mean(0)
        own = deepest_first[student]
        if activation == "softmax":
            total = total + _divergence(source, own, 1).mean()
        else:
            target = source.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(source, target)
            total = total + F.binary_cross_entropy_with_logits(own, target) - entropy
    return (tau**2 if scaling else 1.0) * total


def lessons(
    exits: int, teacher: str, teaches: Sequence[bool] | None = None
) -> list[tuple[tuple[int, ...], int]]:
    """Who is taught by whom: (teachers, student) pairs of exits, counted from the end at which the teacher is.

    Args:
        exits: how many there are.
        teacher: ``shallowest``, ``deepest``: the first; ``previous``, ``next``: the one before; ``mean``: all together.
        teaches: whether each teaches yet; a lesson needs all of its teachers.
    """
    everyone = tuple(range(exits))
    if teacher == "mean":
        pairs = [(everyone, student) for student in everyone if exits > 1]
    else:
        neighbour = teacher in ("previous", "next")
        pairs = [((student - 1 if neighbour else 0,), student) for student in everyone[1:]]
    return [pair for pair in pairs if teaches is None or all(teaches[index] for index in pair[0])]


def detail_loss(features: Tensor, class_map: Tensor, *, reach: int) -> Tensor:
    """Detail without class guesses [ours]: where shallow features have edges, class probabilities should have them too.

    At each position i, the affinities to its 8 neighbours j at a distance of ``reach`` cells are made a distribution:
    the teacher's ``softmax_j(cos(f_i, f_j) / 0.1)``, the student's ``softmax_j(<p_i, p_j> / 0.1)`` with p the class
    probabilities; the loss is the mean over positions of their divergence. A neighbour outside is the nearest inside.
    They meet on the features' grid: class maps are resized bilinearly, or pooled where they are finer.

    Args:
        features: (B, D, h, w) of a shallow block; they get no gradient.
        class_map: (B, C, h', w') logits of the deployed head.
        reach: distance of the neighbours in cells of the features.

    Returns:
        Scalar float32.
    """
    grid = (features.shape[2], features.shape[3])
    if class_map.shape[2] > grid[0] or class_map.shape[3] > grid[1]:
        logits = _pooled(class_map, grid)
    else:
        logits = F.interpolate(class_map.float(), size=grid, mode="bilinear", align_corners=False)
    teacher = _affinities(F.normalize(features.detach().float(), dim=1), reach)
    return _divergence(teacher / DETAIL_TAU, _affinities(logits.softmax(1), reach) / DETAIL_TAU, 1).mean()


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
    *,
    label_weights: Tensor | None = None,
    tag_layers: Sequence[Callable[[Tensor], Tensor]] = (),
    teaches: Sequence[bool] | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of L = lambda1 L_cls + lambda2 L_seg + lambda3 (L_SR-L + L_SR-F), and of our own.

    A term whose weight is zero, or that has nobody to teach, is not computed, so it leaves no trace in any gradient. In
    a U-shape SR-F acts on the encoder's exits and SR-L on the decoder's.

    Args:
        outputs: of the multi-exit network; with labels, channel 0 of the class maps is background.
        tags: (B, C), 1 where the image's tags name the class.
        labels: (B, H, W) pixel labels with 255; None for the classification network.
        config: weights, temperatures and schedule of the stage; a `SegmentConfig` where there are labels.
        progress: share of training done, in [0, 1).
        label_weights: see `segmentation_loss`.
        tag_layers: per exit a layer (B, C) -> (B, C) between pooled class map and score, or none.
        teaches: per exit whether it teaches yet; None: all do.

    Returns:
        Scalars by name (cls, seg, sr_f, sr_l, sr_p, detail); their sum is the loss.
    """
    maps, segment = outputs.class_maps, config if isinstance(config, SegmentConfig) else None
    pooled = [pooled_scores(single[:, labels is not None :], config.pool) for single in maps]
    scores = [layer(score) for layer, score in zip(tag_layers, pooled, strict=True)] if tag_layers else pooled
    learning = slice(None) if config.mea else slice(-1, None)
    strength = sr_strength(progress, start=config.sr_start, ramp=config.sr_ramp)
    ready = [True] * len(maps) if teaches is None else list(teaches)
    above, below = ready[outputs.encoder], ready[outputs.decoder]
    terms: dict[str, Tensor] = {}
    if config.weight_cls:
        loss = classification_loss(scores[learning], tags, weight_exits=config.weight_exits)
        terms["cls"] = config.weight_cls * loss
    if labels is not None and segment and segment.weight_seg:
        loss = segmentation_loss(
            maps[learning], labels, weight_exits=config.weight_exits, label_weights=label_weights
        )
        if outputs.regions is not None:  # whoever asks for exits or not: the head stands on it
            loss = loss + WEIGHT_REGIONS * segmentation_loss(
                [outputs.regions], labels, label_weights=label_weights
            )
        if outputs.scaled:
            further = [*outputs.scaled, _strongest([maps[-1], *outputs.scaled])]
            loss = loss + segmentation_loss(further, labels, label_weights=label_weights)
        terms["seg"] = segment.weight_seg * loss
    if config.weight_sr_f and strength and lessons(len(above), config.sr_f_teacher, above):
        terms["sr_f"] = config.weight_sr_f * strength * _sr_f(outputs, tags, labels, config, above)
    if config.weight_sr_l and strength and lessons(len(below), config.sr_l_teacher, below[::-1]):
        regulation = self_regulation_l(
            scores[outputs.decoder],
            tau=config.tau_l,
            activation=config.sr_l_activation,
            teacher=config.sr_l_teacher,
            scaling=config.tau_scaling,
            teaches=below,
        )
        terms["sr_l"] = config.weight_sr_l * strength * regulation
    if segment and segment.weight_sr_p and strength and len(below) > 1 and below[-1]:
        regulation = self_regulation_f(
            maps[outputs.decoder][::-1], tags, tau=config.tau_l, scaling=config.tau_scaling
        )
        terms["sr_p"] = segment.weight_sr_p * strength * regulation
    if segment and segment.weight_detail and outputs.detail is not None:
        terms["detail"] = segment.weight_detail * detail_loss(
            outputs.detail, maps[-1], reach=segment.detail_reach
        )
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
    taught = images
    if config.sr_axis == "space" and config.sr_mode == "soft":
        taught = (tags.any(1) if config.sr_maps == "features" else tags).count_nonzero().float()
    return {"cls": images, "seg": pixels, "sr_f": taught, "sr_l": images, "sr_p": images, "detail": images}


def _sr_f(
    outputs: ExitOutputs, tags: Tensor, labels: Tensor | None, config: TrainConfig, teaches: Sequence[bool]
) -> Tensor:
    """SR-F on what the configuration names.

    Over classes: whole class vectors, background included. Over positions: the maps of tagged classes, or every feature
    channel of an image with tags.
    """
    class_maps, present, trust = outputs.class_maps[outputs.encoder], tags, None
    maps = class_maps
    if config.sr_maps == "features":
        maps = outputs.feature_maps
        present = tags.any(1, keepdim=True).expand(-1, maps[0].shape[1])
    elif config.sr_axis == "space" and config.sr_mode == "soft":
        maps = [single[:, labels is not None :] for single in maps]
    if labels is not None and isinstance(config, SegmentConfig) and config.sr_f_trust == "label":
        trust = [label_probability(single.detach(), labels) for single in class_maps]
    return self_regulation_f(
        maps,
        present,
        tau=config.tau_f,
        axis=config.sr_axis,
        mode=config.sr_mode,
        teacher=config.sr_f_teacher,
        scaling=config.tau_scaling,
        trust=trust,
        teaches=teaches,
    )


def label_probability(class_map: Tensor, labels: Tensor) -> Tensor:
    """(B, C, h, w) logits, (B, H, W) labels -> (B, h, w) float32: probability of each position's label, 0 where 255."""
    there = labels_on(class_map, labels)
    probability = class_map.float().softmax(1).gather(1, (there * (there != IGNORE))[:, None])[:, 0]
    return probability * (there != IGNORE)


def labels_on(class_map: Tensor, labels: Tensor) -> Tensor:
    """(B, H, W) labels -> (B, h, w) int64: those at the centres of a class map's cells."""
    return F.interpolate(labels[:, None].float(), size=class_map.shape[2:], mode="nearest-exact")[:, 0].long()


def _over_exits(losses: list[Tensor], weight: float) -> Tensor:
    """The sum in which the last exit counts once and every other ``weight`` times."""
    return sum((weight * loss for loss in losses[:-1]), losses[-1])


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


def _strongest(maps: list[Tensor]) -> Tensor:
    """Class maps of several scales -> their maximum on the first one's grid (Chen et al., TPAMI 2018, section 4.3)."""
    grid = maps[0].shape[2:]
    resized = [F.interpolate(each.float(), size=grid, mode="bilinear", align_corners=False) for each in maps]
    return torch.stack(resized).amax(0)


def _divergence(teacher: Tensor, student: Tensor, dim: int) -> Tensor:
    """KL(softmax(teacher), softmax(student)) along ``dim``, which is summed over."""
    return F.kl_div(
        student.log_softmax(dim), teacher.log_softmax(dim), reduction="none", log_target=True
    ).sum(dim)


def _affinities(vectors: Tensor, reach: int) -> Tensor:
    """(B, D, h, w) -> (B, 8, h, w): scalar product of each position's vector with its neighbours'."""
    height, width = vectors.shape[2:]
    padded = F.pad(vectors, (reach,) * 4, mode="replicate")
    corners = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    around = [padded[:, :, y * reach :, x * reach :][:, :, :height, :width] for y, x in corners]
    return torch.stack([(vectors * each).sum(1) for each in around], 1)


def _pooled(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average-pooled in float32 to a grid that is no finer."""
    maps = maps.float()
    return maps if maps.shape[2:] == grid else F.adaptive_avg_pool2d(maps, grid)
