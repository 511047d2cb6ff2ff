"""Training steps beside plain ones, and the loader beside the step."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from data.loading import TrainingViews, training_batches
from stages.training import training_network
from tests.benchmarks import Row
from tests.benchmarks.stages import SAMPLE, enlarged_sample
from wsss.config import RunConfig, SegmentConfig, TrainConfig
from wsss.cost import interleaved_seconds, synthetic_batch, training_step
from wsss.runtime.device import choose_device, choose_precision
from wsss.runtime.pool import loader_workers

ROUNDS, CLASSES = 7, 20
LITE, SIX = SAMPLE.segment, (3, 4, 5, 6, 7, 8)
CASES = {
    "lite0": LITE,
    "lite0 U-shape, six exits": replace(LITE, structure="ushape", decoder_channels=32, exits=SIX),
    "ResNet-50, all exits": SegmentConfig(backbone="resnet50", output_stride=16, crop=192, batch=4),
}
"""Segmentation networks with multi-exit losses and self-regulation."""


def training_job(config: TrainConfig, name: str) -> Callable[[], None]:
    """A training step with all losses of the configuration, on one batch of noise."""
    config, device = replace(config, weights="none"), choose_device("auto")
    return training_step(
        training_network(config, CLASSES, name),
        synthetic_batch(config, CLASSES, device=device),
        config,
        device=device,
        precision=choose_precision(RunConfig(), device),
    )


def seconds_of(job: Callable[[], None], rounds: int = ROUNDS) -> float:
    """The median time of a job."""
    return median(interleaved_seconds({"job": job}, rounds=rounds)["job"])


def step(scale: float) -> list[Row]:
    """A step with exits and self-regulation beside the plain network's, timed in turns."""
    rows = []
    for name, config in CASES.items():
        plain = replace(config, weight_sr_f=0.0, weight_sr_l=0.0, mea=False)
        jobs = {"plain": training_job(plain, "segment"), "ours": training_job(config, "segment")}
        seconds = interleaved_seconds(jobs, rounds=max(1, round(ROUNDS * scale)))
        ours, reference = median(seconds["ours"]), median(seconds["plain"])
        rows.append(Row(f"step with self-regulation, {name}", ours, reference, "s", "ratio <= 1.2"))
    return rows


def loader(scale: float) -> list[Row]:
    """Views per second of the loader alone beside images per second of steps on a batch that stays."""
    (_, samples), config = enlarged_sample(scale), SAMPLE.classify
    workers = loader_workers(SAMPLE.run, accelerator=torch.accelerator.is_available())
    classes = 1 + max(tag for sample in samples for tag in sample.tags)
    views = TrainingViews(samples, classes, config, 0, None)
    batches = training_batches(views, 0, 2 + len(samples) // config.batch, workers)
    list(itertools.islice(batches, 2))  # its processes have started
    started = time.perf_counter()
    rate = sum(len(batch.ids) for batch in batches) / (time.perf_counter() - started)
    trained = config.batch / seconds_of(training_job(config, "classify"))
    return [Row("classify: loader beside step", rate, trained, "images/s", "ratio >= 1")]
