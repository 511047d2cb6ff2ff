"""What a GPU makes of each stage: images a second, share of what its matrix units can do, hours for VOC.

    python -m benchmarks.accelerator                          # configs/voc_24gb.toml with a ResNet-50, on the GPU
    python -m benchmarks.accelerator --images 64 --set segment.crop=161 --matrix 1024     # a try on a CPU

Per stage, images a second of the network alone on data that is there, and its multiply-adds over the measured rate of
one large matrix product: the share of the roofline. Stage `cams` is also timed whole, from made-up photographs of
500 x 375 on disk to the artifact: the ratio says whether the network or the reading is the bottleneck. Weights are
random: they change no time.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.report import CLASSES, DISTINCT, SIZE, make_data
from benchmarks.rows import Row, report
from data import open_dataset
from stages import Context, plan
from stages.cams import compute
from stages.training import network_groups, training_network
from wsss.cams import class_activation_views, label_probabilities
from wsss.config import Config, DataConfig, SegmentConfig, TrainConfig, load_config
from wsss.cost import interleaved_seconds, made_up_batch, multiply_adds, training_step
from wsss.runtime.device import autocast, choose_device, choose_precision
from wsss.store.artifacts import write_artifact

PRESET = Path(__file__).parent.parent / "configs" / "voc_24gb.toml"
TRAIN_AUG, VAL = 10_582, 1_449
BACKWARD = 3
"""A training step's multiply-adds as a multiple of the forward pass's."""
ROUNDS = 5
TAGS = (3, 7)


@dataclass(frozen=True)
class Rate:
    """Images a second of some work, and its multiply-adds per image."""

    images_per_s: float
    multiply_adds: float


def matrix_rate(side: int, device: torch.device, precision: torch.dtype) -> float:
    """Multiply-adds a second of one large square matrix product."""
    one = torch.randn(side, side, device=device, dtype=precision)
    (seconds,) = interleaved_seconds({"product": lambda: _product(one)}, rounds=ROUNDS).values()
    return side**3 / min(seconds)


def _product(one: torch.Tensor) -> None:
    torch.mm(one, one)


def training_rate(config: TrainConfig, stage: str, device: torch.device, precision: torch.dtype) -> Rate:
    """Training steps with all losses of the configuration, on one batch."""
    network = training_network(config, len(CLASSES), stage)
    adds = BACKWARD * multiply_adds(network, height=config.crop, width=config.crop)
    weight_seg = config.weight_seg if isinstance(config, SegmentConfig) else 0.0
    batch = made_up_batch(config, len(CLASSES), device=device)
    step = training_step(network, batch, config, weight_seg=weight_seg, device=device, precision=precision)
    return Rate(config.batch / _seconds(step), adds)


def cams_rate(config: Config, device: torch.device, precision: torch.dtype) -> Rate:
    """CAMs of one photograph that is on the device."""
    network = training_network(config.classify, len(CLASSES), "classify").deploy()
    views = sum(scale**2 for scale in config.cams.scales) * (2 if config.cams.flip else 1)
    adds = views * multiply_adds(network, height=SIZE[0], width=SIZE[1])
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(3, *SIZE, device=device)

    def once() -> None:
        with autocast(device, precision):
            class_activation_views(
                network, image, TAGS, scales=config.cams.scales, flip=config.cams.flip
            ).cams()

    return Rate(1 / _seconds(once), adds)


def prediction_rate(config: SegmentConfig, device: torch.device, precision: torch.dtype) -> Rate:
    """Prediction of one photograph that is on the device, in the views of the configuration."""
    network = training_network(config, len(CLASSES), "segment").deploy()
    views = sum(scale**2 for scale in config.test_scales) * (2 if config.test_flip else 1)
    adds = views * multiply_adds(network, height=SIZE[0], width=SIZE[1])
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(3, *SIZE, device=device)

    def once() -> None:
        with autocast(device, precision), torch.inference_mode():
            label_probabilities(network, image, scales=config.test_scales, flip=config.test_flip)

    return Rate(1 / _seconds(once), adds)


def whole_cams_rate(config: Config, images: int) -> float:
    """Images a second of stage `cams`, from files to the artifact."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_data(root, max(images, DISTINCT))  # fewer would leave a class without a photograph
        data = DataConfig(source="folder", root=str(root))
        config = replace(config, data=data)
        dataset = open_dataset(data)
        planned = {item.name: item for item in plan(config, dataset, Path(folder) / "workspace")}
        network = training_network(config.classify, len(CLASSES), "classify")
        classifier = Path(folder) / "classify.h5"
        write_artifact(classifier, planned["classify"].stamp, groups=network_groups(network))
        training = dataset.weak().split("train")
        training = replace(training, samples=training.samples[:images])
        context = Context(
            config=config,
            data=training,
            inputs={"classify": classifier},
            output=Path(folder) / "cams.h5",
            stamp=planned["cams"].stamp,
            log=lambda _: None,
        )
        started = time.perf_counter()
        compute(context)
        return len(training.samples) / (time.perf_counter() - started)


def _seconds(job: Callable[[], None]) -> float:
    (seconds,) = interleaved_seconds({"job": job}, rounds=ROUNDS).values()
    return sorted(seconds)[ROUNDS // 2]


def main() -> None:
    """Measure every stage, print the table and the hours."""
    options = _arguments()
    overrides = ["classify.backbone=resnet50", "segment.backbone=resnet50", "classify.weights=none"]
    config = load_config(options.config, [*overrides, "segment.weights=none", *options.set])
    device = choose_device(config.run.device)
    precision = choose_precision(config.run, device)
    peak = matrix_rate(options.matrix, device, precision)
    rates = {
        "classify, training": training_rate(config.classify, "classify", device, precision),
        "cams, network alone": cams_rate(config, device, precision),
        "segment, training": training_rate(config.segment, "segment", device, precision),
        "segment, prediction": prediction_rate(config.segment, device, precision),
    }
    whole = whole_cams_rate(config, options.images)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(
        f"\n{name}, {str(precision).removeprefix('torch.')}, {2 * peak / 1e12:.3g} TFLOP/s in a matrix product\n"
    )
    print("| | images/s | of the matrix product's rate |\n|---|---|---|")
    for what, rate in rates.items():
        print(
            f"| {what} | {rate.images_per_s:.3g} | {100 * rate.images_per_s * rate.multiply_adds / peak:.1f} % |"
        )
    print(f"| cams, whole stage | {whole:.3g} | |")
    hours = voc_hours(config, rates, whole)
    print("\nVOC train_aug, hours: " + ", ".join(f"{stage} {value:.2f}" for stage, value in hours.items()))
    figures = {
        "device": name,
        "matrix_multiply_adds_per_s": peak,
        "rates": {what: rate.__dict__ for what, rate in rates.items()},
        "cams_whole_images_per_s": whole,
        "voc_hours": hours,
    }
    ratio = whole / rates["cams, network alone"].images_per_s
    report([Row("cams: whole stage's images/s over the network's alone", ratio, "x")], figures, options.json)


def voc_hours(config: Config, rates: dict[str, Rate], cams: float) -> dict[str, float]:
    """Hours of the stages that run on the GPU, for train_aug and val."""
    seconds = {
        "classify": config.classify.epochs * TRAIN_AUG / rates["classify, training"].images_per_s,
        "cams": TRAIN_AUG / cams,
        "segment": config.segment.epochs * TRAIN_AUG / rates["segment, training"].images_per_s
        + VAL / rates["segment, prediction"].images_per_s,
    }
    return {stage: value / 3600 for stage, value in seconds.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=PRESET)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--images", type=int, default=1000, help="photographs of the whole stage cams")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrix product")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
