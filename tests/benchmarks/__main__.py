"""All benchmarks, each in a process of its own: one table, one JSON file.

    make bench                                       # or: python -m tests.benchmarks
    make bench BENCH_ARGS="cams refine --json figures.json"

Leave the machine alone while it runs.
"""

import argparse
import json
import multiprocessing
import platform
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from tests.benchmarks import HEAD, MODULES, run


def main() -> int:
    """Run what is asked for; 1 if a benchmark failed to run, bars reached or not."""
    known = [name for names in MODULES.values() for name in names]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[[], *known], metavar="NAME", help=", ".join(known))
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of images; 0.1 for a try")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), metavar="FILE")
    options = parser.parse_args()
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    machine = {"date": time.strftime("%Y-%m-%d"), "processor": model[1] if model else platform.machine(),
               "threads": torch.get_num_threads(), "gpu": torch.cuda.is_available() and torch.cuda.get_device_name(),
               "torch": str(torch.__version__)}  # fmt: skip
    rows, failed = [], []
    print(machine, HEAD, sep="\n", flush=True)
    for name in options.names or known:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            try:
                found = alone.submit(run, name, options.scale).result()
            except Exception as error:
                print(f"{name} failed: {error}", file=sys.stderr)
                failed.append(name)
                continue
        print(*found, sep="\n", flush=True)
        rows += [asdict(row) | {"ratio": row.ratio, "reached": row.reached} for row in found]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine, "scale": options.scale, "failed": failed, "rows": rows}
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\nall figures: {options.json}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
