"""The one training loop, for both networks: schedule, precision, processes, checkpoint and resume.

With several processes each takes its part of every batch, and DistributedDataParallel adds up the gradients. Losses
are divided by what the whole batch counts (see `wsss.losses`), so the result is that of one process within rounding.

Every random choice is a function of (seed, epoch, image) in the data and of (seed, step) in the network, so a
checkpoint holds no generator state, and training resumed at step n continues bit for bit.

Which image is in which batch: a function of seed and epoch alone, whatever the number of processes.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsss.compiling import compiled
from wsss.config import TrainConfig
from wsss.depthwise import quick_depthwise
from wsss.errors import UserError, listed
from wsss.losses import shares
from wsss.model.multi_exit import ExitOutputs, MultiExitNetwork
from wsss.runtime import distributed
from wsss.runtime.device import autocast
from wsss.runtime.interrupt import Interrupted, requested
from wsss.runtime.progress import progress_bar
from wsss.store.artifacts import Artifact, DamagedArtifactError, Stamp, write_artifact
from wsss.store.files import is_sealed

from timm.layers.norm_act import convert_sync_batchnorm  # isort: skip - after wsss.runtime.torchvision_guard
from collections.abc import Iterator

CHECKPOINT_SECONDS = 60.0
"""Training time between checkpoints: what a kill can cost at most."""


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


Objective = Callable[[ExitOutputs, Tensor, Tensor | None, float], dict[str, Tensor]]
"""(outputs, tags, labels, progress in [0, 1)) -> weighted loss terms by name."""


@dataclass(frozen=True)
class Training:
    """Everything `train` needs beside the network.

    Attributes:
        config: optimiser and schedule.
        steps: optimiser steps in all.
        batches: given the first step wanted, yields the batches from there to the end.
        objective: the loss.
        checkpoint: where to keep the state between tries.
        stamp: of the stage; a checkpoint of another fingerprint is ignored.
        label: of the progress bar.
        log: told once per epoch of the mean loss terms.
        compile: the network with ``torch.compile``, where that works.
    """

    config: TrainConfig
    steps: int
    steps_per_epoch: int
    batches: Callable[[int], Iterable[Batch]]
    objective: Objective
    checkpoint: Path
    stamp: Stamp
    label: str
    log: Callable[[dict[str, float]], None]
    compile: bool = False


def train(network: MultiExitNetwork, job: Training, *, device: torch.device, precision: torch.dtype) -> None:
    """Train in place, going on from the job's checkpoint if there is one.

    Raises:
        UserError: the loss is not finite; the message names the step and the images.
        Interrupted: a stop was asked for; the checkpoint holds everything.
    """
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _check_processes(job.config, device, job.stamp.stage)
    set_training(network, freeze_bn=job.config.freeze_bn, frozen_blocks=job.config.frozen_blocks)
    optimizer = make_optimizer(network, job.config)
    first = _resume(network, optimizer, job)
    criterion = _in_parallel(Criterion(network, job, device, precision))
    saved = time.monotonic()
    means = _Means()
    with progress_bar(job.steps * job.config.batch, job.label, "img") as bar:
        bar.update(first * job.config.batch)
        for step, batch in zip(range(first, job.steps), job.batches(first), strict=True):
            set_learning_rate(optimizer, job.config, step / job.steps)
            torch.manual_seed(step_seed(job.stamp.seed, step))
            due = distributed.leads() and time.monotonic() - saved > CHECKPOINT_SECONDS
            terms, stop, due = _step(criterion, optimizer, batch, job, step, due)
            means.add(terms)
            bar.set_postfix_str(f"loss {sum(terms.values()):.3f}", refresh=False)
            bar.update(job.config.batch)
            done = step + 1
            if done % job.steps_per_epoch == 0:
                job.log({"epoch": done // job.steps_per_epoch, **means.take()})
            # The last one too: what comes after training may fail, and must not cost the training.
            if stop or due or done == job.steps:
                if distributed.leads():
                    _save(network, optimizer, job, done)
                distributed.wait()
                saved = time.monotonic()
            if stop:
                raise Interrupted


def set_training(network: MultiExitNetwork, *, freeze_bn: bool, frozen_blocks: int) -> None:
    """Training mode, with the backbone's BatchNorm (statistics, scale, shift) and its shallow blocks as asked."""
    network.train()
    network.plain.backbone.freeze(frozen_blocks)
    if freeze_bn:
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


def step_seed(seed: int, step: int) -> int:
    """The seed of the network's own randomness (dropout) at a step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def state_arrays(module: nn.Module) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """A module's state dict as NumPy arrays."""
    return {name: value.detach().cpu().contiguous().numpy() for name, value in module.state_dict().items()}


def load_arrays(
    module: nn.Module, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
) -> None:
    """Load what `state_arrays` gave; names and shapes must match."""
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})


class _Means:
    """Mean loss terms since the last `take`."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, terms: dict[str, float]) -> None:
        self._count += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        means = {name: round(total / self._count, 6) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class Criterion(nn.Module):
    """Network and losses as one module, so that DistributedDataParallel sees which weights a loss reaches.

    Args:
        network: in training.
        job: its objective and configuration.
        device: where it is.
        precision: of the network; losses are computed in float32.
    """

    def __init__(
        self, network: MultiExitNetwork, job: Training, device: torch.device, precision: torch.dtype
    ) -> None:
        super().__init__()
        self.network = network
        self.outputs: Callable[[Tensor], ExitOutputs] = (
            compiled(network) if job.compile else network.__call__  # no second name for its parameters
        )
        self.job = job
        self.device = device
        self.precision = precision

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """This process's part of the batch's weighted loss terms, by name."""
        images = batch.images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        tags = batch.tags.to(self.device, non_blocking=True)
        labels = None if batch.labels is None else batch.labels.to(self.device, non_blocking=True)
        with autocast(self.device, self.precision), quick_depthwise(self.device):
            outputs = self.outputs(images)
        terms = self.job.objective(outputs, tags, labels, progress)
        if distributed.count() == 1:
            return terms
        part = shares(tags, labels, self.job.config)
        return {name: term * part[name] for name, term in terms.items()}


def _in_parallel(criterion: Criterion) -> nn.Module:
    if distributed.count() == 1:
        return criterion
    if not criterion.job.config.freeze_bn:
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


def _step(
    criterion: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, job: Training, step: int, due: bool
) -> tuple[dict[str, float], bool, bool]:
    """One step.

    Returns:
        The loss terms of the whole batch; whether any process was asked to stop; whether one finds a checkpoint due.
    """
    terms = criterion(batch, step / job.steps)
    own = [float(term.detach()) for term in terms.values()]
    *summed, stop, due_anywhere = distributed.total(torch.tensor([*own, requested(), due])).tolist()
    values = dict(zip(terms, summed, strict=True))
    if not all(math.isfinite(value) for value in values.values()):
        raise UserError(
            f"{job.label}: the loss is not finite at step {step + 1} of {job.steps} ({values}), images "
            f"{listed(batch.ids, ', ')}.\nTry a smaller {job.stamp.stage}.lr, run.precision=fp32 or lr_warmup=0.1."
        )
    optimizer.zero_grad(set_to_none=True)
    if terms:
        # DistributedDataParallel takes the mean of the gradients, and the loss is the sum of the parts.
        (distributed.count() * torch.stack(list(terms.values())).sum()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return values, stop > 0, due_anywhere > 0


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


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of ``count`` images in an epoch: a permutation that depends on seed and epoch alone."""
    return [int(i) for i in np.random.default_rng([seed, epoch]).permutation(count)]


def batch_indices(
    count: int, batch: int, seed: int, first: int, steps: int
) -> Iterator[list[tuple[int, int]]]:
    """The (epoch, image) pairs of every batch from step ``first`` on.

    A remainder smaller than a batch waits for another epoch's order, except when there are fewer images than
    a batch holds: then every batch is the whole set.
    """
    per_epoch = steps_in_epoch(count, batch)
    drawn = -1
    for step in range(first, steps):
        epoch, position = divmod(step, per_epoch)
        if epoch != drawn:
            order, drawn = epoch_order(count, seed, epoch), epoch
        yield [(epoch, index) for index in order[position * batch : (position + 1) * batch]]


def steps_in_epoch(count: int, batch: int) -> int:
    """Optimiser steps per epoch."""
    return max(1, count // batch)
