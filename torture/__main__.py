"""``python -m torture``: everything in its long form, within a time budget. Exit status 1 where something was found."""

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torture.damage import damage_everywhere
from torture.faults import FAULTS
from torture.fuzz.campaign import fuzz
from torture.fuzz.targets import TARGETS
from torture.kill import kill_anywhere, stopped
from torture.launch import cut_small
from torture.tiny import Tiny, make_tiny

PARTS = ("fuzz", "damage", "kill", "faults")
SHARES = {"fuzz": 0.35, "damage": 0.2, "kill": 0.3, "faults": 0.15}
"""Of the time, by part; what a part leaves goes to the next."""


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"default: {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--cases", type=int, default=5000, help="of fuzzing")
    parser.add_argument("--places", type=int, default=200, help="that are damaged")
    parser.add_argument("--kills", type=int, default=100)
    options = parser.parse_args()
    parts = options.parts or list(PARTS)
    print(f"torture --seed {options.seed}", flush=True)
    cut_small()  # as in the processes that it starts
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    tiny = make_tiny(folder / "data")
    total, end, findings = sum(SHARES[part] for part in parts), time.monotonic(), []
    for part in parts:
        end += 60 * options.minutes * SHARES[part] / total
        findings += _RUN[part](tiny, folder, options, _spent(end))
    for finding in findings:
        print(f"FOUND {finding}")
    print(f"{len(findings)} findings{f', see {folder}' if findings else ''}")
    if not findings:
        shutil.rmtree(folder)
    return 1 if findings else 0


def _spent(end: float) -> Callable[[], bool]:
    return lambda: time.monotonic() > end


def _fuzz(_: Tiny, folder: Path, options: argparse.Namespace, spent: Callable[[], bool]) -> list[str]:
    findings, done = [], 0
    for name in TARGETS:
        tally = fuzz([name], -(-options.cases // len(TARGETS)), options.seed, folder, spent=spent)
        findings += tally.findings
        done += tally.outcomes.total()
        print(f"fuzz {name}: {dict(tally.outcomes)}, slowest {tally.slowest:.2f} s", flush=True)
    print(f"fuzz: {done} cases", flush=True)
    return findings


def _damage(tiny: Tiny, folder: Path, options: argparse.Namespace, spent: Callable[[], bool]) -> list[str]:
    whole = folder / "undamaged"
    status, output = tiny.finish(whole)
    if status:
        return [f"the undamaged run failed: {output[-800:]}"]
    found = damage_everywhere(tiny, whole, folder, options.places, options.seed, spent=spent)
    print(f"damage: {found.done.total()} places, {dict(found.done)}", flush=True)
    return found.findings


def _kill(tiny: Tiny, folder: Path, options: argparse.Namespace, spent: Callable[[], bool]) -> list[str]:
    deaths = kill_anywhere(tiny, folder, options.kills, options.seed, spent=spent)
    print(f"kill: {deaths.kills} kills, {deaths.during}, {deaths.finished} runs compared", flush=True)
    asked = [(signal.SIGINT, 1.0), (signal.SIGTERM, 3.0)]
    return deaths.findings + [
        each
        for everybody in (False, True)
        for number, after in asked
        for each in stopped(tiny, folder, number, after, everybody=everybody)
    ]


def _faults(tiny: Tiny, folder: Path, _: argparse.Namespace, spent: Callable[[], bool]) -> list[str]:
    findings = []
    for name, attempt in FAULTS.items():
        if spent():
            print(f"faults: no time left for {name}", flush=True)
            continue
        found = attempt(tiny, folder / name.replace(" ", "-"))
        findings += [f"{name}: {text}" for text in found]
        print(f"faults, {name}: {'as it should be' if not found else 'FOUND'}", flush=True)
    return findings


_RUN = {"fuzz": _fuzz, "damage": _damage, "kill": _kill, "faults": _faults}

if __name__ == "__main__":
    sys.exit(main())
