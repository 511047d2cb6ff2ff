"""Training steps beside plain ones, the loader beside the step, and each stage beside what the hardware could do."""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from data import Sample
from data.loading import TrainingViews, training_batches
from stages.training import training_network
from tests.benchmarks import Row
from tests.benchmarks.stages import SAMPLE, UInt8, enlarged_sample, stage
from tests.pipelines import ROOT
from tests.trees import make_folder_tree
from wsss.cams import class_activation_views, label_probabilities
from wsss.config import Config, RunConfig, SegmentConfig, TrainConfig, load_config
from wsss.cost import interleaved_seconds, made_up_batch, median_ratios, multiply_adds, training_step
from wsss.runtime.device import autocast, choose_device, choose_precision
from wsss.runtime.pool import loader_workers

ROUNDS, CLASSES, BAR_STEP = 7, 20, 1.2
TRAIN_AUG, VAL = 10_582, 1_449
LITE = SAMPLE.segment
CASES = {
    "lite0": LITE,
    "lite0 U-shape, six exits": replace(
        LITE, structure="ushape", decoder_channels=32, exits=(3, 4, 5, 6, 7, 8)
    ),
    "ResNet-50, all exits": SegmentConfig(backbone="resnet50", output_stride=16, crop=192, batch=4),
}
"""Segmentation networks with multi-exit losses and self-regulation."""


def training_job(config: TrainConfig, name: str) -> Callable[[], None]:
    """A training step with all losses of the configuration, on one batch of noise."""
    config, device = replace(config, weights="none"), choose_device("auto")
    return training_step(
        training_network(config, CLASSES, name),
        made_up_batch(config, CLASSES, device=device),
        config,
        weight_seg=config.weight_seg if isinstance(config, SegmentConfig) else 0.0,
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
        reference = median(seconds["plain"])
        ours = reference * median_ratios(seconds)["ours"]
        rows.append(Row(f"step with self-regulation, {name}", ours, reference, "s", at_most=BAR_STEP))
    return rows


def truth(sample: Sample) -> UInt8:
    """Labels to crop; those of the pseudo-masks take as long."""
    assert sample.mask is not None
    return sample.mask.read()


def loader(scale: float) -> list[Row]:
    """Views per second of the loader alone beside images per second of steps on a batch that stays."""
    (_, samples), config, rows = enlarged_sample(scale), SAMPLE, []
    workers = loader_workers(config.run, accelerator=torch.accelerator.is_available())
    classes = 1 + max(tag for sample in samples for tag in sample.tags)
    for name, section in (("classify", config.classify), ("segment", config.segment)):
        views = TrainingViews(samples, classes, section, 0, truth if name == "segment" else None)
        batches = training_batches(views, 0, 2 + len(samples) // section.batch, workers)
        list(itertools.islice(batches, 2))  # its processes have started
        started = time.perf_counter()
        rate = sum(len(batch.ids) for batch in batches) / (time.perf_counter() - started)
        trained = section.batch / seconds_of(training_job(section, name))
        rows.append(Row(f"{name}: loader beside step", rate, trained, "images/s", at_least=1.0))
    return rows


def prediction_job(config: Config, name: str, size: tuple[int, int]) -> tuple[Callable[[], None], float]:
    """CAMs or class probabilities of an image that is on the device; and their multiply-adds."""
    section, device = getattr(config, name), choose_device("auto")
    network = training_network(section, CLASSES, name).deploy()
    if name == "classify":
        scales, flip = config.cams.scales, config.cams.flip
    else:
        scales, flip = config.segment.test_scales, config.segment.test_flip
    adds = (
        (1 + flip) * sum(each**2 for each in scales) * multiply_adds(network, height=size[0], width=size[1])
    )
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image, precision = torch.rand(3, *size, device=device), choose_precision(config.run, device)

    def predict() -> None:
        with autocast(device, precision), torch.inference_mode():
            if name == "classify":
                class_activation_views(network, image, (3, 7), scales=scales, flip=flip).cams()
            else:
                label_probabilities(network, image, scales=scales, flip=flip)

    return predict, adds


def accelerator(scale: float) -> list[Row]:
    """configs/voc_24gb.toml with ResNet-50: images per second beside the rate of a large matrix product.

    Networks alone on data that is there, forward and backward three times forward; then stage `cams` whole, from
    files to the artifact, beside its network; and the hours of VOC. ``scale`` shrinks images and crops.
    """
    size, preset = (round(375 * scale), round(500 * scale)), ROOT / "configs" / "voc_24gb.toml"
    stages = ("classify", "segment")
    settings = [f"{name}.{key}" for name in stages for key in ("backbone=resnet50", "weights=none")]
    full = load_config(preset, settings)
    settings += [f"{name}.crop={round(getattr(full, name).crop * scale)}" for name in stages]
    config, device = load_config(preset, settings), choose_device("auto")
    side = 8192 if device.type == "cuda" else 1024
    square = torch.randn(side, side, device=device, dtype=choose_precision(config.run, device))

    def product() -> None:
        torch.mm(square, square)

    peak = side**3 / seconds_of(product)
    rates: dict[str, float] = {}
    rows = []
    for name, predicted in zip(stages, ("cams, the network", "predictions"), strict=True):
        section = getattr(config, name)
        adds = 3.0 * multiply_adds(
            training_network(section, CLASSES, name), height=section.crop, width=section.crop
        )
        jobs = {f"{name}, training": (section.batch, training_job(section, name), adds)}
        jobs[predicted] = (1, *prediction_job(config, name, size))
        for what, (images, job, each) in jobs.items():
            rates[what] = images / seconds_of(job)
            rows.append(Row(what, rates[what], peak / each, "images/s"))
    with tempfile.TemporaryDirectory() as folder:
        names = [f"class {number}" for number in range(CLASSES)]
        make_folder_tree(
            Path(folder), n_train=max(CLASSES, round(1000 * scale)), n_val=1, classes=names, size=size
        )
        given = [
            part
            for setting in (*settings, "data.source=folder", "classify.epochs=1")
            for part in ("--set", setting)
        ]
        stage("classify", preset, Path(folder), *given)
        whole = 1 / stage("cams", preset, Path(folder), *given)[1]
    rows.append(Row("cams, the stage beside its network", whole, rates["cams, the network"], "images/s"))
    hours = [
        config.classify.epochs * TRAIN_AUG / rates["classify, training"],
        TRAIN_AUG / whole,
        config.segment.epochs * TRAIN_AUG / rates["segment, training"] + VAL / rates["predictions"],
    ]
    rows.append(Row("VOC's classify, cams and segment", sum(hours) / 3600, float("nan"), "hours"))
    return rows
