"""Whether training waits for its data, and what bfloat16 and channels_last bring on this machine.

    python -m benchmarks.training_data --images 128

For classify and segment of the sample's configuration: views a second of the loader alone, with as many processes as
training would use, beside images a second of training steps alone, on a batch that stays. Then the same step in the
published way, float32 and contiguous, and in the other combinations.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks.prepared import arguments, sample_session
from benchmarks.rows import Row, report
from data import Sample
from data.loading import PseudoMasks, TrainingViews, training_batches
from stages.commands.session import Session
from stages.training import training_network
from wsss.config import SegmentConfig, TrainConfig
from wsss.cost import interleaved_seconds, made_up_batch, median_ratios, training_step
from wsss.runtime.device import choose_device, choose_precision
from wsss.runtime.pool import loader_workers
from wsss.store.artifacts import Artifact
from wsss.train import steps_in_epoch

ROUNDS = 5
WAYS: dict[str, tuple[torch.memory_format, torch.dtype]] = {
    "fp32, contiguous": (torch.contiguous_format, torch.float32),
    "fp32, channels_last": (torch.channels_last, torch.float32),
    "bf16, contiguous": (torch.contiguous_format, torch.bfloat16),
    "bf16, channels_last": (torch.channels_last, torch.bfloat16),
}
PUBLISHED = "fp32, contiguous"


def loading_rate(session: Session, config: TrainConfig, samples: Sequence[Sample], workers: int) -> float:
    """Views a second of the loader alone, its processes started."""
    weak = isinstance(config, SegmentConfig)
    masks = PseudoMasks(Artifact(session.planned["refine"].path)) if weak else None
    views = TrainingViews(samples, len(session.dataset.classes), config, session.config.seed, masks)
    batches = iter(training_batches(views, 0, 2 + steps_in_epoch(len(views), config.batch), workers))
    for _ in itertools.islice(batches, 2):
        pass
    started = time.perf_counter()
    count = sum(len(batch.ids) for batch in batches)
    return count / (time.perf_counter() - started)


def step_seconds(config: TrainConfig, classes: int, stage: str) -> dict[str, list[float]]:
    """Seconds of a training step on one batch, every way in turn."""
    device = choose_device("auto")
    batch = made_up_batch(config, classes, device=device)
    steps: dict[str, Callable[[], None]] = {}
    for name, (layout, precision) in WAYS.items():
        network = training_network(replace(config, weights="none"), classes, stage)
        images = batch.images.contiguous(memory_format=layout)
        steps[name] = training_step(
            network,
            replace(batch, images=images),
            config,
            weight_seg=config.weight_seg if isinstance(config, SegmentConfig) else 0.0,
            device=device,
            precision=precision,
        )
        network.to(memory_format=layout)  # type: ignore[call-overload]
    return interleaved_seconds(steps, rounds=ROUNDS)


def measure(session: Session, images: int) -> tuple[list[Row], dict[str, object]]:
    """Rows and figures of both training stages."""
    samples = session.dataset.split(session.config.data.train_split).samples[:images]
    classes = len(session.dataset.classes)
    device = choose_device("auto")
    workers = loader_workers(session.config.run, accelerator=device.type != "cpu")
    chosen = "bf16" if choose_precision(session.config.run, device) == torch.bfloat16 else "fp32"
    rows, figures = [], {"loader_processes": workers, "chosen_precision": chosen}
    for stage, config in (("classify", session.config.classify), ("segment", session.config.segment)):
        loader = loading_rate(session, config, samples, workers)
        seconds = step_seconds(config, classes, stage)
        ratios = median_ratios(seconds)
        ours = f"{chosen}, channels_last"
        step = config.batch / sorted(seconds[ours])[ROUNDS // 2]
        rows += [
            Row(f"{stage}: loader alone over training step alone", loader / step, "x", 1.0),
            Row(f"{stage}: published step over ours ({ours})", ratios[PUBLISHED] / ratios[ours], "x", 1.0),
        ]
        figures[stage] = {
            "loader_images_per_s": loader,
            "step_images_per_s": step,
            "step_seconds": {name: sorted(times)[ROUNDS // 2] for name, times in seconds.items()},
        }
    return rows, figures


def main() -> None:
    """Read the arguments, measure, print."""
    options = arguments(__doc__)
    session = sample_session(options.workspace.resolve(), "refine")
    rows, figures = measure(session, options.images)
    for stage in ("classify", "segment"):
        print(stage, figures[stage])
    report(rows, figures, options.json)


if __name__ == "__main__":
    main()
