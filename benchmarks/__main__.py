"""All benchmarks, one after the other, each in a process of its own: one table, one JSON file.

    make bench                                    # or: python -m benchmarks
    make bench BENCH_ARGS="cams refine --json figures.json"

Every figure stands beside a plain reference of the same run, so it means something on a busy machine too; times by
themselves do not. Leave the machine alone while it runs.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, read, table

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "cams": ("benchmarks.cams",),
    "refine": ("benchmarks.refine", "--images", "200"),
    "training_data": ("benchmarks.training_data",),
    "training_step": ("benchmarks.training_step",),
    "unchanged_run": ("benchmarks.unchanged_run", "--scale", "0.1"),
    "report": ("benchmarks.report", "--images", "1000"),
    "scaling": ("benchmarks.scaling",),
}
"""In this order; the first ones train the sample's classifier and keep it in the workspace."""


def main() -> int:
    """Run what is asked for; 1 if a benchmark failed to run, 0 otherwise, bars reached or not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    chosen = options.names or list(BENCHMARKS)
    rows: list[Row] = []
    found: dict[str, object] = {}
    failed = []
    started = time.monotonic()
    for name in chosen:
        print(f"\n## {name}\n", flush=True)
        result = run(name)
        if result is None:
            failed.append(name)
            continue
        rows += result[0]
        found[name] = result[1]
    minutes = (time.monotonic() - started) / 60
    print(f"\n# {machine()['processor']}, {minutes:.0f} min\n\n{table(rows)}")
    if failed:
        print(f"\nfailed to run: {', '.join(failed)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    everything = {"machine": machine(), "minutes": minutes, "failed": failed, "benchmarks": found}
    options.json.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    print(f"\nall figures: {options.json}")
    return 1 if failed else 0


def run(name: str) -> tuple[list[Row], object] | None:
    """The rows and the whole JSON of a benchmark, None if it failed."""
    module, *arguments = BENCHMARKS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        done = subprocess.run([sys.executable, "-m", module, *arguments, "--json", str(path)], check=False)
        if done.returncode or not path.exists():
            return None
        return read(path), json.loads(path.read_text(encoding="utf-8"))


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import torch

    from wsss.runtime.pool import cpu_cores

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": cpu_cores(),
        "gpu": gpu,
        "capabilities": sorted(name for name, has in torch.cpu.get_capabilities().items() if has is True),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    """The CPU's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
