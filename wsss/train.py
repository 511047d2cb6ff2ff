"""The one training loop, for both networks: order of images, schedule, precision, processes, checkpoint and resume.

With several processes each takes its part of every batch, and DistributedDataParallel adds up the gradients. Loss
terms are weighted by the part's share of what the whole batch counts (`wsss.losses.term_counts`), so the result is
that of one process within rounding.

What each exit knows is followed over recent batches (`MultiExitNetwork.known`): it is logged, and with ``sr_bar`` an
exit teaches from the step on at which it passed.

Every random choice is a function of (seed, epoch, image) in the data and of (seed, step) in the network, so a
checkpoint holds no generator state, and training resumed at step n continues bit for bit.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from wsss import IGNORE
from wsss.config import SegmentConfig, TrainConfig
from wsss.errors import UserError, listed
from wsss.losses import labels_on, loss_terms, pooled_scores, term_counts
from wsss.metrics.confusion import mean_defined, ratio
from wsss.metrics.sweep import sweep_ious
from wsss.model.heads import ImageDropout
from wsss.model.multi_exit import ExitOutputs, MultiExitNetwork
from wsss.runtime import distributed
from wsss.runtime.device import autocast
from wsss.runtime.interrupt import Interrupted, requested
from wsss.runtime.pool import progress_bar
from wsss.store.artifacts import Artifact, DamagedArtifactError, Stamp, write_artifact
from wsss.store.files import is_sealed

from timm.layers.norm_act import convert_sync_batchnorm  # isort: skip - after wsss.model.backbone

CHECKPOINT_SECONDS = 60.0
"""Training time between checkpoints: what a kill can cost at most."""
MEMORY = 0.95
"""How much of what exits were known to know counts at the next batch."""
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Batch:
    """Training views.

    Attributes:
        ids: of the images, for messages.
        images: (B, 3, H, W) float32 RGB in [0, 1].
        tags: (B, C) float32, 0 or 1.
        labels: (B, H, W) uint8 with 255, or None.
    """

    ids: list[str]
    images: Tensor
    tags: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Training:
    """Everything `train` needs beside the network.

    Attributes:
        config: the training stage's section: losses, optimiser, schedule.
        steps: optimiser steps in all.
        steps_per_epoch: after so many, ``log`` is called.
        batches: given the first step wanted, yields the batches from there to the end.
        checkpoint: file of the state from which an interrupted training is resumed.
        stamp: of the stage; a checkpoint of another fingerprint is not used.
        log: called once per epoch with the mean loss terms and what exits know, and when an exit begins to teach.
        compile: run the network with ``torch.compile``, where that works.
        label_weights: (1 + C,) factors on the cross-entropy by label, or None for 1.
    """

    config: TrainConfig
    steps: int
    steps_per_epoch: int
    batches: Callable[[int], Iterable[Batch]]
    checkpoint: Path
    stamp: Stamp
    log: Callable[[dict[str, float]], None]
    compile: bool = False
    label_weights: Tensor | None = None


def train(network: MultiExitNetwork, job: Training, *, device: torch.device, precision: torch.dtype) -> None:
    """Train in place, resuming from the job's checkpoint if there is one.

    Raises:
        UserError: the loss is not finite; the message names the step and the images.
        Interrupted: a stop was asked for; the checkpoint holds everything.
    """
    config, stage = job.config, job.stamp.stage
    _check_processes(config, device, stage)
    prepare(network, config, device)
    optimizer = make_optimizer(network, config)
    first = _resume(network, optimizer, job)
    criterion = _in_parallel(
        Criterion(network, config, device, precision, compile=job.compile, label_weights=job.label_weights)
    )
    saved = time.monotonic()
    seen: list[dict[str, float]] = []
    slow = device.type == "cpu" and precision == torch.bfloat16 and not job.compile
    with (
        depthwise_in_float32(network) if slow else contextlib.nullcontext(),
        progress_bar(job.steps * config.batch, stage, "img") as bar,
    ):
        bar.update(first * config.batch)
        for step, batch in zip(range(first, job.steps), job.batches(first), strict=True):
            set_learning_rate(optimizer, config, step / job.steps)
            torch.manual_seed(step_seed(job.stamp.seed, step))
            due = distributed.leads() and time.monotonic() - saved > CHECKPOINT_SECONDS
            terms = criterion(batch, step / job.steps)
            values, stop, due = _agree(terms, due)
            if not all(math.isfinite(value) for value in values.values()):
                raise UserError(
                    f"{stage}: the loss is not finite at step {step + 1} of {job.steps} ({values}), images "
                    f"{listed(batch.ids, ', ')}.\nTry a smaller {stage}.lr, run.precision=fp32 or lr_warmup=0.1."
                )
            optimise(optimizer, terms)
            for index in new_teachers(network, config.sr_bar):
                job.log({"step": step + 1, "teaches": block_numbers(network)[index]})
            seen.append(values)
            bar.set_postfix_str(f"loss {sum(values.values()):.3f}", refresh=False)
            bar.update(config.batch)
            done = step + 1
            if done % job.steps_per_epoch == 0:
                job.log(
                    {"epoch": done // job.steps_per_epoch, **_means(seen), **exit_figures(network, config)}
                )
                seen = []
            # The last one too: what comes after training may fail, and must not cost the training.
            if stop or due or done == job.steps:
                if distributed.leads():
                    _save(network, optimizer, job, done)
                distributed.wait()
                saved = time.monotonic()
            if stop:
                raise Interrupted


@contextlib.contextmanager
def depthwise_in_float32(network: nn.Module) -> Iterator[None]:
    """In this block the network's learning depthwise convolutions leave autocast.

    A CPU's bfloat16 gradients of them take up to 8 times as long as those in float32, and a third of a whole step.
    """

    def leave(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        entered.append(torch.is_autocast_enabled("cpu"))
        torch.set_autocast_enabled("cpu", False)
        return tuple(each.float() for each in inputs)

    def enter(_layer: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        torch.set_autocast_enabled("cpu", entered.pop())

    entered: list[bool] = []
    hooks = []
    for layer in network.modules():
        if (
            isinstance(layer, nn.Conv2d)
            and 1 < layer.groups == layer.in_channels
            and layer.weight.requires_grad
        ):
            hooks += [layer.register_forward_pre_hook(leave), layer.register_forward_hook(enter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class Criterion(nn.Module):
    """Network and losses as one module, so that DistributedDataParallel sees which weights a loss reaches.

    Args:
        network: in training, on the device.
        config: the training stage's section.
        device: where the network is.
        precision: of the network; losses are computed in float32.
        compile: run the network with ``torch.compile``. Where that fails, it says so and continues without.
        label_weights: see `Training`.
    """

    def __init__(
        self,
        network: MultiExitNetwork,
        config: TrainConfig,
        device: torch.device,
        precision: torch.dtype,
        *,
        compile: bool = False,
        label_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.device = device
        self.precision = precision
        self.label_weights = None if label_weights is None else label_weights.to(device)
        self.compiled: Any = torch.compile(network.forward, dynamic=False) if compile else None

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """This process's part of the batch's weighted loss terms, by name."""
        images = batch.images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        tags = batch.tags.to(self.device, non_blocking=True)
        labels = None if batch.labels is None else batch.labels.to(self.device, non_blocking=True)
        shares = self._shares(tags, labels) if distributed.count() > 1 else {}
        with autocast(self.device, self.precision):
            outputs = self._outputs(images)
            if isinstance(self.config, SegmentConfig) and self.config.loss_scales:
                outputs = replace(outputs, scaled=[self._scaled(images, s) for s in self.config.loss_scales])
        known = exit_counts(outputs, tags, labels, self.config)
        self.network.known.mul_(MEMORY).add_(distributed.total(known))
        terms = loss_terms(
            outputs,
            tags,
            labels,
            self.config,
            progress,
            label_weights=self.label_weights,
            tag_layers=list(self.network.tag_layers),
            teaches=[bool(each) for each in self.network.teaches.tolist()] if self.config.sr_bar else None,
        )
        return {name: term * shares[name] if shares else term for name, term in terms.items()}

    def _scaled(self, images: Tensor, scale: float) -> Tensor:
        size = [max(1, round(scale * side)) for side in images.shape[2:]]
        resized = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.network.plain(resized)  # type: ignore[no-any-return]

    def _outputs(self, images: Tensor) -> ExitOutputs:
        if self.compiled is not None:
            try:
                return self.compiled(images)  # type: ignore[no-any-return]
            except (
                Exception
            ) as error:  # compilers fail with almost anything; an error of the network comes again
                self.compiled = None
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                tqdm.write(f"run.compile: not possible here, continuing without ({reason})")
        return self.network(images)  # type: ignore[no-any-return]

    def _shares(self, tags: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """By term, this process's share of the whole batch; terms times their shares add up to the batch's terms."""
        counts = term_counts(tags, labels, self.config)
        own = torch.stack(list(counts.values()))
        whole = distributed.total(own)
        images = int(whole[list(counts).index("cls")])
        for module in self.network.modules():
            if isinstance(module, ImageDropout):
                module.batch = images, distributed.part(images)
        return dict(zip(counts, own / whole.clamp(min=1), strict=True))


@torch.no_grad()
def exit_counts(outputs: ExitOutputs, tags: Tensor, labels: Tensor | None, config: TrainConfig) -> Tensor:
    """What each exit says of a batch beside what is known.

    Args:
        outputs: of the network.
        tags: (B, C), 1 where the image's tags name the class.
        labels: (B, H, W) with 255, or None.
        config: how scores are pooled.

    Returns:
        (E, L, 3) float32: positions of each exit's own grid, 8 pixels apart, whose label it finds, has and predicts, by
        label; without labels (E, C, 3), the same of images and tags.
    """
    counts = []
    for maps in outputs.class_maps:
        if labels is None:
            named = pooled_scores(maps, config.pool) > 0
            counts.append(torch.stack([(named & (tags > 0)).sum(0), (tags > 0).sum(0), named.sum(0)], 1))
            continue
        step = max(1, 8 * maps.shape[2] // labels.shape[1])  # of finer grids some positions are enough
        found, there = maps[:, :, ::step, ::step].argmax(1), labels_on(maps, labels)[:, ::step, ::step]
        counted = there != IGNORE
        parts = (there[counted & (found == there)], there[counted], found[counted])
        counts.append(torch.stack([part.bincount(minlength=maps.shape[1]) for part in parts], 1))
    return torch.stack(counts).float()


def exit_figures(network: MultiExitNetwork, config: TrainConfig) -> dict[str, float]:
    """By block of each exit, in recent batches: mIoU with labels or tags, and the share of foreground or tags found."""
    known = network.known.cpu().numpy()
    miou = mean_defined(sweep_ious(known))
    foreground = known[:, isinstance(config, SegmentConfig) :].sum(1)
    found = ratio(foreground[:, 0], foreground[:, 1])
    return {
        f"exit{block}.{name}": round(float(value), 4)
        for name, values in (("miou", miou), ("found", found))
        for block, value in zip(block_numbers(network), values, strict=True)
        if math.isfinite(value)
    }


def block_numbers(network: MultiExitNetwork) -> list[int]:
    """The blocks of all exits, 1 = shallowest."""
    return [block + 1 for block in [*network.blocks, len(network.plain.channels) - 1]]


def new_teachers(network: MultiExitNetwork, bar: float) -> list[int]:
    """Let the exits teach whose mIoU in recent batches has reached the bar; returns those that begin now."""
    if not bar or bool(network.teaches.all()):
        return []
    passed = mean_defined(sweep_ious(network.known.cpu().numpy())) >= bar
    fresh = [index for index, taught in enumerate(network.teaches.tolist()) if passed[index] and not taught]
    network.teaches[fresh] = 1
    return fresh


def prepare(network: MultiExitNetwork, config: TrainConfig, device: torch.device) -> None:
    """Move to the device, in training mode, with the backbone's BatchNorm and shallow blocks frozen as configured.

    A frozen BatchNorm keeps its statistics, scale and shift.
    """
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    network.plain.backbone.freeze(config.frozen_blocks)
    if config.freeze_bn:
        for module in network.plain.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval().requires_grad_(False)


def make_optimizer(network: MultiExitNetwork, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW with two parameter groups: the backbone, and all heads at ``head_lr`` times its rate."""
    backbone = [p for p in network.plain.backbone.parameters() if p.requires_grad]
    inside = {id(p) for p in network.plain.backbone.parameters()}
    heads = [p for p in network.parameters() if p.requires_grad and id(p) not in inside]
    groups = [{"params": backbone, "factor": 1.0}, {"params": heads, "factor": config.head_lr}]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, progress: float) -> None:
    """Polynomial decay ``lr (1 - progress)^poly`` after a linear warm-up; ``progress`` in [0, 1)."""
    rate = config.lr * (1 - progress) ** config.poly
    if progress < config.lr_warmup:
        rate *= progress / config.lr_warmup
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def optimise(optimizer: torch.optim.Optimizer, terms: Mapping[str, Tensor]) -> None:
    """One step down the gradient of the sum of this process's loss terms."""
    optimizer.zero_grad(set_to_none=True)
    if terms:
        # DistributedDataParallel takes the mean of the gradients, and the loss is the sum of the parts.
        (distributed.count() * torch.stack(list(terms.values())).sum()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def step_seed(seed: int, step: int) -> int:
    """The seed of the network's own randomness (dropout) at a step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def batch_indices(
    count: int, batch: int, seed: int, first: int, steps: int
) -> Iterator[list[tuple[int, int]]]:
    """The (epoch, image) pairs of every batch from step ``first`` on: a function of seed and epoch alone.

    Each epoch is a permutation of the ``count`` images. A remainder smaller than a batch waits for another epoch's
    order, except when there are fewer images than a batch holds: then every batch is the whole set.
    """
    per_epoch = steps_in_epoch(count, batch)
    drawn = -1
    for step in range(first, steps):
        epoch, position = divmod(step, per_epoch)
        if epoch != drawn:
            order, drawn = np.random.default_rng([seed, epoch]).permutation(count).tolist(), epoch
        yield [(epoch, index) for index in order[position * batch : (position + 1) * batch]]


def steps_in_epoch(count: int, batch: int) -> int:
    """Optimiser steps per epoch."""
    return max(1, count // batch)


def state_arrays(module: nn.Module) -> Arrays:
    """A module's state dict as NumPy arrays."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in module.state_dict().items()}


def load_arrays(module: nn.Module, arrays: Arrays) -> None:
    """Load what `state_arrays` gave; names and shapes must match."""
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})


def _in_parallel(criterion: Criterion) -> nn.Module:
    if distributed.count() == 1:
        return criterion
    if not criterion.config.freeze_bn:
        convert_sync_batchnorm(criterion)  # type: ignore[no-untyped-call]
    # Which weights a loss reaches changes when self-regulation starts: DDP has to look every time.
    return DistributedDataParallel(criterion, forward_sync_buffers=False, find_unused_parameters=True)


def _check_processes(config: TrainConfig, device: torch.device, stage: str) -> None:
    """Refuse what several processes cannot do."""
    if distributed.count() == 1:
        return
    if config.batch < distributed.count():
        raise UserError(
            f"{stage}.batch = {config.batch} for {distributed.count()} processes: expected at least one image each; "
            f"set --set {stage}.batch={distributed.count()} or more, or start fewer processes"
        )
    if not config.freeze_bn and device.type != "cuda":
        raise UserError(
            f"{stage}.freeze_bn = false with several processes: synchronised BatchNorm needs GPUs; set "
            f"{stage}.freeze_bn=true or use one process"
        )


def _agree(terms: Mapping[str, Tensor], due: bool) -> tuple[dict[str, float], bool, bool]:
    """The terms of the whole batch; whether any process was asked to stop; whether a checkpoint is due anywhere."""
    own = [float(term.detach()) for term in terms.values()]
    *summed, stop, due_anywhere = distributed.total(torch.tensor([*own, requested(), due])).tolist()
    return dict(zip(terms, summed, strict=True)), stop > 0, due_anywhere > 0


def _means(seen: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name: None for values in seen for name in values}  # a set would lose their order
    return {name: round(sum(values.get(name, 0.0) for values in seen) / len(seen), 6) for name in names}


def _save(network: MultiExitNetwork, optimizer: torch.optim.Optimizer, job: Training, done: int) -> None:
    moments = {
        f"{index:05d}.{key}": value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }
    groups = {"network": state_arrays(network), "optimizer": moments, "progress": {"step": np.asarray(done)}}
    write_artifact(job.checkpoint, job.stamp, groups=groups)


def _resume(network: MultiExitNetwork, optimizer: torch.optim.Optimizer, job: Training) -> int:
    """Load the checkpoint, if it is one of this job, and return the number of steps it holds."""
    if not job.checkpoint.exists() or not is_sealed(job.checkpoint):
        return 0
    try:
        artifact = Artifact(job.checkpoint, fingerprint=job.stamp.fingerprint)
        weights, moments = artifact.group("network"), artifact.group("optimizer")
        done = int(artifact.group("progress")["step"])
        artifact.close()
    except DamagedArtifactError:
        return 0
    load_arrays(network, weights)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in moments.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = torch.from_numpy(np.array(value))
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return done
