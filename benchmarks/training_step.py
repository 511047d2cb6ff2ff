"""What exits and self-regulation add to a training step, beside the plain network's step in the same run.

    python -m benchmarks.training_step                        # the cases that suit this machine
    python -m benchmarks.training_step --case resnet50/192 --rounds 9 --threads 1 --json costs.json

Each case trains the segmentation network on noise: plain, with multi-exit losses (MEA), with self-regulation too
(MEA + SR) on the configured exits and on all blocks, and the same with the released exit heads (two 3x3 convolutions of
256 channels at each block's own resolution). Steps are timed in turn; a ratio is the median over rounds of the ratios
to the plain step of the same round. Multiply-adds and parameters are relative to the plain network.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.released_heads import with_released_heads
from benchmarks.rows import Row, report
from stages.training import training_network
from wsss.config import RunConfig, SegmentConfig
from wsss.cost import (
    interleaved_seconds,
    made_up_batch,
    median_ratios,
    network_cost,
    prediction,
    training_step,
)
from wsss.memory import keep_freed_memory
from wsss.model.multi_exit import MultiExitNetwork
from wsss.runtime.device import choose_device, choose_precision

BAR = 1.15
"""A step with self-regulation may take this many times a plain one."""
PLAIN, MEA, FULL, ALL, RELEASED = "plain", "MEA", "MEA + SR", "MEA + SR, all blocks", "released heads"


@dataclass(frozen=True)
class Case:
    """A network, its crop and its batch.

    Attributes:
        name: to choose it by.
        config: of the segmentation network with self-regulation.
        classes: foreground classes.
        accelerator: too slow without one.
    """

    name: str
    config: SegmentConfig
    classes: int = 20
    accelerator: bool = False


LITE = SegmentConfig(  # as configs/folder.toml
    weights="none",
    backbone="tf_efficientnet_lite0",
    output_stride=16,
    frozen_blocks=2,
    exits=(3, 4),
    head="light",
    head_channels=128,
    crop=192,
    batch=16,
    optimizer="adamw",
    lr=2e-4,
    weight_sr_l=0.3,
)
RESNET = SegmentConfig(backbone="resnet50", weights="none", output_stride=16, crop=192, batch=4)
USHAPE = (3, 4, 5, 6, 7, 8)
CASES = (
    Case("lite0/192", LITE, classes=15),
    Case(
        "lite0/192 ushape", replace(LITE, structure="ushape", decoder_channels=32, exits=USHAPE), classes=15
    ),
    Case("resnet50/192", RESNET),
    Case("resnet50/321", replace(RESNET, output_stride=8, crop=321, batch=10), accelerator=True),
    Case("resnet101/321", SegmentConfig(weights="none"), accelerator=True),  # as published: DeepLab-v2
)


def variants(case: Case) -> dict[str, tuple[SegmentConfig, MultiExitNetwork]]:
    """The networks that are compared, each with its configuration; the plain one first."""
    config = case.config
    without_sr = replace(config, weight_sr_f=0.0, weight_sr_l=0.0)
    configs = {PLAIN: replace(without_sr, mea=False), MEA: without_sr, FULL: config}
    if config.exits:
        configs[ALL] = replace(config, exits=())
    made = {name: (each, training_network(each, case.classes, "segment")) for name, each in configs.items()}
    everywhere = replace(config, exits=())
    released = with_released_heads(training_network(everywhere, case.classes, "segment"), case.classes + 1)
    return {**made, RELEASED: (everywhere, released)}


def measure(
    case: Case, device: torch.device, precision: torch.dtype, rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Times, ratios and counts of one case, ready for JSON."""
    batch = made_up_batch(case.config, case.classes, device=device)
    built = variants(case)
    steps = {
        name: training_step(
            network, batch, config, weight_seg=config.weight_seg, device=device, precision=precision
        )
        for name, (config, network) in built.items()
    }
    seconds = interleaved_seconds(steps, rounds=rounds, clock=clock)
    ratios = median_ratios(seconds)
    measured = {
        name: {
            "step_ms": 1000 * statistics.median(seconds[name]),
            "step_ratio": ratios[name],
            **relative_counts(network, case.config.crop),
        }
        for name, (_, network) in built.items()
    }
    deployed: dict[str, Callable[[], None]] = {
        name: prediction(network.deploy(), batch.images, device=device, precision=precision)
        for name, (_, network) in built.items()
        if name in (PLAIN, FULL)
    }
    inference = interleaved_seconds(deployed, rounds=2 * rounds, clock=clock)
    return {
        "case": case.name,
        "crop": case.config.crop,
        "batch": case.config.batch,
        "classes": case.classes,
        "precision": str(precision).removeprefix("torch."),
        "rounds": rounds,
        "variants": measured,
        "inference_ms": 1000 * statistics.median(inference[PLAIN]),
        "inference_ratio": median_ratios(inference)[FULL],
        "same_multiply_adds": len({row["multiply_adds"] for row in measured.values()}) == 1,
        "bar": BAR,
        "within_bar": ratios[FULL] <= BAR,
    }


def relative_counts(network: MultiExitNetwork, crop: int) -> dict[str, float]:
    """Counts of the deployed network, and what the exits add as shares of them."""
    cost = network_cost(network, height=crop, width=crop)
    return {
        "multiply_adds": cost.multiply_adds,
        "parameters": cost.parameters,
        "exit_multiply_adds_share": cost.exit_multiply_adds / cost.multiply_adds,
        "exit_parameters_share": cost.exit_parameters / cost.parameters,
    }


def main() -> None:
    """Read the arguments, measure, print."""
    options = _arguments()
    keep_freed_memory()  # as the command line does
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    precision = choose_precision(RunConfig(precision=options.precision), device)
    clock = time.process_time if options.cpu_time else time.perf_counter
    chosen = _chosen(options.case, device)
    found = [measure(case, device, precision, options.rounds, clock) for case in chosen]
    kind = "CPU time" if options.cpu_time else "wall time"
    print(f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}, {kind}")
    for result in found:
        print_case(result)
    about = {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "clock": kind,
    }
    report([row for result in found for row in rows(result)], {**about, "cases": found}, options.json)


def rows(result: dict[str, Any]) -> list[Row]:
    """What the figures are held against."""
    name, ours = result["case"], result["variants"][FULL]
    return [
        Row(
            f"{name}: step with self-regulation over the plain one",
            ours["step_ratio"],
            "x",
            BAR,
            at_least=False,
        ),
        Row(f"{name}: deployed network's time over the plain one's", result["inference_ratio"], "x"),
    ]


def print_case(result: dict[str, Any]) -> None:
    """A table of the variants, then the bar and the deployed network."""
    variants = result["variants"]
    adds, parameters = variants[PLAIN]["multiply_adds"] / 1e9, variants[PLAIN]["parameters"] / 1e6
    print(
        f"\n{result['case']}: batch {result['batch']}, {result['classes']} classes, {result['precision']}; plain "
        f"network {adds:.2f} G multiply-adds an image, {parameters:.2f} M parameters\n"
    )
    print("| training | step, ms | ratio | multiply-adds | parameters |\n|---|---|---|---|---|")
    for name, row in variants.items():
        print(
            f"| {name} | {row['step_ms']:.0f} | {row['step_ratio']:.2f} | "
            f"+{100 * row['exit_multiply_adds_share']:.1f} % | +{100 * row['exit_parameters_share']:.1f} % |"
        )
    verdict = "pass" if result["within_bar"] else "FAIL"
    print(f"\nMEA + SR {variants[FULL]['step_ratio']:.2f} <= {BAR}: {verdict}")
    same = "the same" if result["same_multiply_adds"] else "ANOTHER"
    print(
        f"deployed: {result['inference_ms']:.1f} ms a batch, ratio {result['inference_ratio']:.2f}, {same} graph"
    )


def _chosen(names: Sequence[str], device: torch.device) -> list[Case]:
    known = {case.name: case for case in CASES}
    if unknown := set(names) - set(known):
        sys.exit(f"no case {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if names:
        return [known[name] for name in names]
    return [case for case in CASES if device.type != "cpu" or not case.accelerator]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="+", default=[], metavar="NAME", help="e.g. lite0/192")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: torch's own choice")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: for a busy machine, with --threads 1"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
