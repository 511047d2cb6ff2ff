"""How long the command line takes where nothing has changed: `run` and `status` again, and `--help`.

    python -m benchmarks.unchanged_run [--scale 0.1] [--repeat 3]

A data set with the files of COCO 2017 (123,287 small photographs, 896,782 polygons; at full scale some minutes to
make) gets a finished run with made-up results. Then each command runs in a process of its own: `run` as the bar
says it, `run` with nothing remembered of the listing (annotations are read, photographs are not decoded), `status`.
Beside them, a plain reference: the least that tells whether a photograph or an annotation file has changed, one
`stat` per file.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.made_up import finish_run, make_data
from benchmarks.rows import Row, report

PIPELINE = Path(__file__).parent.parent / "run_pipeline.py"
HELP, UNCHANGED = 0.5, 3.0
"""Seconds."""
COCO_IMAGES = 123_287


def timed(arguments: Sequence[str]) -> tuple[float, float, str]:
    """Run the pipeline's command line: seconds, seconds of CPU, and what it printed.

    Raises:
        SystemExit: it failed; its messages are shown.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, str(PIPELINE), *arguments], capture_output=True, text=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, done.stdout


def stat_all(root: Path) -> float:
    """The reference: seconds to ask for the status of every file of the data set, their names known."""
    names = [str(path) for path in root.rglob("*") if path.is_file()]
    started = time.perf_counter()
    for name in names:
        os.stat(name)  # noqa: PTH116
    return time.perf_counter() - started


def peak(arguments: Sequence[str]) -> float:
    """Peak resident MiB of a command."""
    code = (
        "import re, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: print(re.findall('VmHWM.*', open('/proc/self/status').read())[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(PIPELINE), *arguments], check=True, capture_output=True, text=True
    )
    return int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)[0]) / 1024


def best_time(
    name: str, arguments: Sequence[str], repeat: int, *, forget: Path | None = None
) -> dict[str, float]:
    """Print and return the best of several times of a command; ``forget`` is deleted before each."""
    best = (float("inf"), float("inf"))
    for _ in range(repeat):
        if forget:
            forget.unlink(missing_ok=True)
        seconds, cpu, printed = timed(arguments)
        assert "computed" not in printed, printed
        assert "set aside" not in printed, printed
        best = min(best, (seconds, cpu))
    found = {"seconds": best[0], "cpu_seconds": best[1], "peak_mib": peak(arguments)}
    print(
        f"{name:36} {best[0]:7.2f} s ({best[1]:.2f} s of CPU)   peak {found['peak_mib']:5.0f} MiB", flush=True
    )
    return found


def main() -> None:
    """Make the run, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of COCO's size (default: 1)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="the best of N (default: 3)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="make it here and leave it; used where it is"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        root, workspace = place / "coco", place / "runs"
        if not workspace.exists():
            make_data(root, options.scale)
            finish_run(root, workspace)
        (listing,) = workspace.glob("*.listing")
        again = ["--name", "made-up", "--workspace", str(workspace)]
        found = {
            "--help": best_time("--help", ["--help"], options.repeat),
            "run, listing forgotten": best_time("run, listing forgotten", ["run", *again], 1, forget=listing),
            "run": best_time("run", ["run", *again], options.repeat),
            "status": best_time("status", ["status", *again], options.repeat),
        }
        least = stat_all(root)
    print(f"{'reference: stat of every file':36} {least:7.2f} s")
    images = round(options.scale * COCO_IMAGES)
    rows = [
        Row("start-up: --help", found["--help"]["seconds"], "s", HELP, at_least=False),
        Row(f"unchanged run, {images:,} images", found["run"]["seconds"], "s", UNCHANGED, at_least=False),
        Row("unchanged run over asking for every file's status", found["run"]["seconds"] / least, "x"),
    ]
    report(rows, {"scale": options.scale, "stat_seconds": least, "commands": found}, options.json)


if __name__ == "__main__":
    main()
