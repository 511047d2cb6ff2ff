"""What a network costs: parameters, multiply-adds, and times of training steps and predictions, fairly compared."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from wsss import IGNORE
from wsss.config import SegmentConfig, TrainConfig
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork
from wsss.runtime.device import autocast
from wsss.train import Batch, Criterion, make_optimizer, optimise, prepare, set_learning_rate

PROGRESS = 1 - 1e-6
"""Share of the training that is done: any schedule of self-regulation has started, unless it never does."""
UNLABELLED = 0.1
"""Share of rows of synthetic labels that is 255."""


def network_cost(network: MultiExitNetwork, *, height: int, width: int) -> dict[str, int]:
    """Count a network for an image of (height, width) pixels: what is deployed, and what exits add to it in training.

    Shapes alone are followed (torch's meta device): nothing is computed, and the network, its mode and its
    statistics stay as they are. Multiply-adds are half of what `torch.utils.flop_counter` counts; like it, they
    leave out normalisation, activation, pooling and the losses, whose time `interleaved_seconds` shows.

    Returns:
        ``parameters`` and ``multiply_adds`` (of one image, forward) of the deployed network, and the same of the rest
        under ``exit_``.
    """
    plain = sum(parameter.numel() for parameter in network.plain.parameters())
    deployed = multiply_adds(network.plain, height=height, width=width)
    return {
        "parameters": plain,
        "exit_parameters": sum(parameter.numel() for parameter in network.parameters()) - plain,
        "multiply_adds": deployed,
        "exit_multiply_adds": multiply_adds(network, height=height, width=width) - deployed,
    }


def multiply_adds(network: nn.Module, *, height: int, width: int) -> int:
    """Multiply-adds of one image's forward pass through a network that takes (B, 3, H, W)."""
    images = 2  # one image of one cell per channel would stop BatchNorm and GroupNorm in training mode
    state = {name: torch.empty_like(value, device="meta") for name, value in network.state_dict().items()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(network, state, (torch.empty(images, 3, height, width, device="meta"),))
    return int(counter.get_total_flops()) // (2 * images)


def interleaved_seconds(jobs: Mapping[str, Callable[[], None]], *, rounds: int) -> dict[str, list[float]]:
    """Time jobs in turn, round by round, so that whatever else the machine does meets all alike.

    Each job runs once before, untimed. Every other round goes backwards, so that no job always follows the
    same one.

    Args:
        jobs: by name; the first is what the others are compared with.
        rounds: how often each is timed, at least 1.

    Returns:
        Seconds of each round by name, in the jobs' order.

    Raises:
        ValueError: no job or no round.
    """
    if not jobs or rounds < 1:
        raise ValueError(f"{len(jobs)} jobs, {rounds} rounds: expected at least one of each")
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds):
        for name in list(jobs) if turn % 2 == 0 else list(jobs)[::-1]:
            _finish()
            start = time.perf_counter()
            jobs[name]()
            _finish()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How long each job takes relative to the first: the median over rounds of the ratios within a round.

    A ratio within a round divides two times measured one after the other; a ratio of medians would compare
    different moments of a busy machine.
    """
    first = next(iter(seconds.values()))
    return {
        name: statistics.median(own / base for own, base in zip(times, first, strict=True))
        for name, times in seconds.items()
    }


def synthetic_batch(config: TrainConfig, classes: int, *, device: torch.device, seed: int = 0) -> Batch:
    """Noise of the configured crop and batch, with C foreground classes in its tags and, to segment by, its labels."""
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
    device: torch.device,
    precision: torch.dtype,
) -> Callable[[], None]:
    """Put the network in training as `wsss.train.train` does; what is returned makes one step, self-regulation on.

    Args:
        network: is moved to the device and trained, at the learning rate of the schedule's very end.
        batch: on the device, its images in channels_last.
        config: loss terms, optimiser and what is frozen.
        device: where it is computed.
        precision: of the forward pass.
    """
    prepare(network, config, device)
    network.teaches.fill_(1)  # noise would take no exit past a bar
    optimizer = make_optimizer(network, config)
    set_learning_rate(optimizer, config, PROGRESS)
    criterion = Criterion(network, config, device, precision)

    def step() -> None:
        terms = criterion(batch, PROGRESS)
        for term in terms.values():
            term.item()  # training looks at it at every step, which an accelerator has to wait for
        optimise(optimizer, terms)

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


def _finish() -> None:
    """Wait until an accelerator, where there is one, has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
