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

PIPELINE = Path(__file__).parent.parent / "run_pipeline.py"


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


def report(name: str, arguments: Sequence[str], repeat: int, *, forget: Path | None = None) -> None:
    """Print the best of several times of a command; ``forget`` is deleted before each."""
    best = (float("inf"), float("inf"))
    for _ in range(repeat):
        if forget:
            forget.unlink(missing_ok=True)
        seconds, cpu, printed = timed(arguments)
        assert "computed" not in printed, printed
        best = min(best, (seconds, cpu))
    print(
        f"{name:36} {best[0]:7.2f} s ({best[1]:.2f} s of CPU)   peak {peak(arguments):5.0f} MiB", flush=True
    )


def main() -> None:
    """Make the run, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of COCO's size (default: 1)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="the best of N (default: 3)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="make it here and leave it; used where it is"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        root, workspace = place / "coco", place / "runs"
        if not workspace.exists():
            make_data(root, options.scale)
            finish_run(root, workspace)
        (listing,) = workspace.glob("*.listing")
        again = ["--name", "made-up", "--workspace", str(workspace)]
        report("--help", ["--help"], options.repeat)
        report("run, listing forgotten", ["run", *again], 1, forget=listing)
        report("run", ["run", *again], options.repeat)
        report("status", ["status", *again], options.repeat)
        print(f"{'reference: stat of every file':36} {stat_all(root):7.2f} s")


if __name__ == "__main__":
    main()
