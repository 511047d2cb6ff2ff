"""How cost grows with the data: peak memory, and a cost model that is held against runs of other sizes.

    python -m benchmarks.scaling [--images 40 320 400] [--json FILE]

Made-up photographs of 500 x 375, tf_efficientnet_lite0, one epoch, the settings of configs/folder.toml; every stage by
the real command line, in a process of its own. Three things are printed:

- time, memory and disk of every command at each number of images, and peak memory of the largest number over that
  of the smallest;
- what the cost model (`benchmarks.cost_model`), fitted to a few other small runs, predicts for the first two sizes,
  over what was measured;
- what it says of VOC, COCO and 10 million images.

``--from FILE`` prints all this from an earlier ``--json FILE`` without running anything.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.cost_model import (
    BYTES,
    COMMANDS,
    SECONDS,
    Cost,
    Driver,
    Workload,
    fit,
    per_image,
    readable_bytes,
)
from benchmarks.rows import Row, report
from benchmarks.scaling_runs import MIB, Usage, whole_run

BAR = 1.1
"""Peak memory at the largest number of images over that at the smallest, at most."""
Found = list[tuple[Workload, dict[str, Usage]]]

LARGE: Mapping[str, Workload] = {
    "VOC train_aug": Workload(train=10_582, val=1_449, tags=1.5, epochs=(8, 10)),
    "COCO 2017": Workload(train=118_287, val=5_000, megapixels=0.3072, tags=2.9, classes=80, epochs=(8, 10)),
    "10 million": Workload(
        train=10_000_000, val=5_000, megapixels=0.3072, tags=2.9, classes=80, epochs=(8, 10)
    ),
}
"""Epochs are those of configs/folder.toml; 10 million are images of COCO's kind."""


def sized(images: int) -> Workload:
    """So many photographs of 500 x 375, a fifth of them for validation."""
    train = images - images // 5
    return Workload(train=train, val=images - train, classes=min(20, 2 * train))


def calibration(small: int, large: int) -> list[Workload]:
    """Workloads that differ from each other in one thing at a time (settings of different stages together)."""
    base = sized(large)
    return [
        sized(small),
        base,
        replace(base, megapixels=base.megapixels / 4),
        replace(base, classes=min(80, 2 * base.train)),
        replace(base, tags=4.0),
        replace(base, scales=(0.5, 1.0), crops=(192, 256), iterations=5),
    ]


def measured(workloads: Sequence[Workload], settings: Sequence[str]) -> Found:
    """Run each of them, saying which."""
    found = []
    for workload in workloads:
        print(f"running {workload}", flush=True)
        found.append((workload, whole_run(workload, settings)))
    return found


def prices(found: Found, drivers: Mapping[str, Mapping[str, Driver]], attribute: str) -> dict[str, Cost]:
    """The fitted cost of every command."""
    return {
        command: fit(
            drivers[command], [(workload, getattr(usage[command], attribute)) for workload, usage in found]
        )
        for command in COMMANDS
    }


def usage_table(runs: Found) -> str:
    """What every command took at every size."""
    rows = [
        "| images | command | s | s of CPU | largest process, MiB | all processes, MiB | left on disk | peak disk |"
    ]
    rows.append("|---|---|---|---|---|---|---|---|")
    rows += [
        f"| {workload.images} | {command} | {usage.seconds:.1f} | {usage.cpu:.1f} | {usage.peak / MIB:.0f} | "
        f"{usage.peak_sum / MIB:.0f} | {readable_bytes(usage.bytes)} | {readable_bytes(usage.disk)} |"
        for workload, usages in runs
        for command, usage in usages.items()
    ]
    return "\n".join(rows)


def memory_table(runs: Found) -> str:
    """Peak memory of the largest size over the smallest, and over the second largest."""
    ordered = sorted(runs, key=lambda run: run[0].images)
    smallest, before, largest = ordered[0], ordered[-2], ordered[-1]
    rows = [
        f"| peak memory, {largest[0].images} images over | {smallest[0].images} | {before[0].images} "
        f"| all processes, over {before[0].images} |",
        "|---|---|---|---|",
    ]
    for command in COMMANDS:
        peak, peak_sum = largest[1][command].peak, largest[1][command].peak_sum
        ratio = peak / smallest[1][command].peak
        rows.append(
            f"| {command} | {ratio:.3f}{'' if ratio <= BAR else f' (above {BAR})'} | "
            f"{peak / before[1][command].peak:.3f} | {peak_sum / before[1][command].peak_sum:.3f} |"
        )
    return "\n".join(rows)


def model_table(costs: Mapping[str, Cost], write: Callable[[float], str]) -> str:
    """Start and prices of every command."""
    rows = ["| command | start | price of one |", "|---|---|---|"]
    for command, cost in costs.items():
        terms = ", ".join(f"{name}: {write(price)}" for name, price in cost.prices.items() if price)
        rows.append(f"| {command} | {write(cost.start)} | {terms} |")
    return "\n".join(rows)


def check_table(runs: Found, seconds: Mapping[str, Cost], sizes: Mapping[str, Cost]) -> str:
    """Predicted over measured, for seconds and bytes."""
    rows = [
        "| images | command | predicted s | measured s | ratio | predicted bytes / measured |",
        "|---|---|---|---|---|---|",
    ]
    for workload, usages in runs:
        for command, usage in usages.items():
            predicted = seconds[command].predict(SECONDS[command], workload)
            size = sizes[command].predict(BYTES[command], workload)
            rows.append(
                f"| {workload.images} | {command} | {predicted:.1f} | {usage.seconds:.1f} | "
                f"{predicted / usage.seconds:.2f} | {size / max(usage.bytes, 1):.2f} |"
            )
    return "\n".join(rows)


def extrapolation(seconds: Mapping[str, Cost], sizes: Mapping[str, Cost]) -> str:
    """Hours and bytes of the large data sets."""
    rows = ["| data | command | hours | s per training image | on disk |", "|---|---|---|---|---|"]
    for name, workload in LARGE.items():
        for command in COMMANDS:
            hours = seconds[command].predict(SECONDS[command], workload) / 3600
            each = per_image(seconds[command], SECONDS[command], workload)
            size = sizes[command].predict(BYTES[command], workload)
            rows.append(f"| {name} | {command} | {hours:,.2f} | {each:.4f} | {readable_bytes(size)} |")
    return "\n".join(rows)


def figures(calibrated: Found, runs: Found) -> dict[str, Any]:
    """All that was measured; `read_json` gives it back."""
    return {
        name: [{"workload": asdict(workload), "usage": {key: asdict(value) for key, value in usage.items()}}
               for workload, usage in found]
        for name, found in (("calibration", calibrated), ("runs", runs))
    }  # fmt: skip


def memory_rows(runs: Found) -> list[Row]:
    """Peak memory of the largest size over the smallest, by command."""
    ordered = sorted(runs, key=lambda run: run[0].images)
    (few, smallest), (many, largest) = ordered[0], ordered[-1]
    what = f"peak memory, {many.images} images over {few.images}"
    return [
        Row(f"{command}: {what}", largest[command].peak / smallest[command].peak, "x", BAR, at_least=False)
        for command in COMMANDS
    ]


def read_json(path: Path) -> tuple[Found, Found]:
    """Calibration and runs from the file of an earlier ``--json``."""
    content = json.loads(path.read_text(encoding="utf-8"))["figures"]

    def found(name: str) -> Found:
        return [
            (
                _workload(item["workload"]),
                {command: Usage(**figures) for command, figures in item["usage"].items()},
            )
            for item in content[name]
        ]

    return found("calibration"), found("runs")


def _workload(values: Mapping[str, Any]) -> Workload:
    fields: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Workload(**fields)


def show(calibrated: Found, runs: Found) -> None:
    """Print every table that the figures allow."""
    print(f"\n{usage_table(runs)}")
    if len(runs) > 1:
        print(f"\n{memory_table(runs)}")
    if calibrated:
        seconds, sizes = prices(calibrated, SECONDS, "seconds"), prices(calibrated, BYTES, "bytes")
        print(f"\n{model_table(seconds, lambda value: f'{value:.3g} s')}")
        print(f"\n{model_table(sizes, readable_bytes)}")
        print(f"\n{check_table(runs[:2], seconds, sizes)}")
        print(f"\n{extrapolation(seconds, sizes)}")


def main() -> None:
    """Measure or read, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[40, 320, 400], metavar="N")
    parser.add_argument(
        "--calibration",
        type=int,
        nargs="*",
        default=[52, 160],
        metavar="N",
        help="two sizes, or none: memory alone",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as of run_pipeline.py"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="earlier", help="read them, run nothing")
    options = parser.parse_args()
    if options.earlier:
        show(*read_json(options.earlier))
        return
    calibrated = measured(calibration(*options.calibration) if options.calibration else [], options.set)
    runs = measured([sized(images) for images in options.images], options.set)
    show(calibrated, runs)
    report(memory_rows(runs), figures(calibrated, runs), options.json)


if __name__ == "__main__":
    main()
