"""``python -m torture``: everything in its long form, within a time budget. Exit status 1 where something was found.

Two lanes run side by side, each a process of its own with data of its own, for most of the work keeps one core busy.
"""

import argparse
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torture.damage import damage_everywhere
from torture.faults import FAULTS
from torture.fuzz.campaign import fuzz
from torture.fuzz.targets import TARGETS
from torture.kill import kill_anywhere
from torture.launch import cut_small
from torture.tiny import Tiny, make_tiny, undisturbed

PARTS = ("faults", "fuzz", "damage", "kill")
LANES: tuple[dict[str, float], ...] = (
    {"faults": 0.45, "kill": 0.55},
    {"fuzz": 0.3, "damage": 0.3, "kill": 0.4},
)
"""What each lane does, in order, and its share of the time; what a part leaves goes to the next."""
KILLS = (0.45, 0.55)
"""Each lane's share of the kills. The lanes differ in the number of workers that load images: 1 and 0."""
CLOSING = 25.0
"""Seconds kept for what ends a part: the last run is finished and compared."""


@dataclass(frozen=True)
class Lane:
    """One lane's means.

    Attributes:
        number: 0 or 1.
        tiny: its pipeline.
        folder: scratch.
        options: of the command line.
    """

    number: int
    tiny: Tiny
    folder: Path
    options: argparse.Namespace

    @property
    def seed(self) -> int:
        """Of its own damage and kills."""
        return 2 * int(self.options.seed) + self.number


Spent = Callable[[], bool]


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help=f"default: {', '.join(PARTS)}")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--cases", type=int, default=5000, help="of fuzzing")
    parser.add_argument("--places", type=int, default=200, help="that are damaged")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--lane", type=int, choices=range(len(LANES)), help="this one alone, in this process")
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    if options.lane is not None:
        return _run_lane(options)
    print(f"torture --seed {options.seed}", flush=True)
    given = [*options.parts, "--seed", options.seed, "--minutes", options.minutes]
    given += ["--cases", options.cases, "--places", options.places, "--kills", options.kills]
    lanes = [number for number, shares in enumerate(LANES) if shares.keys() & set(options.parts)]
    command = [sys.executable, "-m", "torture", *map(str, given), "--lane"]
    processes = [subprocess.Popen([*command, str(number)]) for number in lanes]
    statuses = [process.wait() for process in processes]
    return 1 if any(statuses) else 0


def _run_lane(options: argparse.Namespace) -> int:
    started = time.monotonic()
    cut_small()  # as in the processes that it starts
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    lane = Lane(options.lane, make_tiny(folder / "data", workers=1 - options.lane), folder, options)
    shares = {part: share for part, share in LANES[options.lane].items() if part in options.parts}
    end, findings = started, []
    for part, share in shares.items():
        end += max(0.0, 60 * options.minutes - CLOSING) * share / sum(shares.values())
        before = time.monotonic()
        findings += _RUN[part](lane, _spent(end))
        print(f"{part}: {time.monotonic() - before:.0f} s", flush=True)
    for finding in findings:
        print(f"FOUND {finding}")
    print(f"{', '.join(shares)}: {len(findings)} findings{f', see {folder}' if findings else ''}")
    if not findings:
        shutil.rmtree(folder)
    return 1 if findings else 0


def _spent(end: float) -> Spent:
    return lambda: time.monotonic() > end


def _fuzz(lane: Lane, spent: Spent) -> list[str]:
    cases = -(-lane.options.cases // len(TARGETS))
    tally = fuzz(list(TARGETS), cases, lane.options.seed, lane.folder, spent=spent)
    for line in tally.lines():
        print(f"fuzz {line}")
    print(f"fuzz: {tally.outcomes.total()} cases, slowest {tally.slowest:.2f} s", flush=True)
    return tally.findings


def _damage(lane: Lane, spent: Spent) -> list[str]:
    whole = undisturbed(lane.tiny, lane.folder / "whole")
    workspace = lane.folder / "damaged"
    found = damage_everywhere(lane.tiny, whole, workspace, lane.options.places, lane.seed, spent=spent)
    print(f"damage: {found.done.total()} places, {dict(found.done)}", flush=True)
    return found.findings


def _kill(lane: Lane, spent: Spent) -> list[str]:
    whole = undisturbed(lane.tiny, lane.folder / "whole")
    kills = round(lane.options.kills * KILLS[lane.number])
    deaths = kill_anywhere(lane.tiny, whole, lane.folder / "killed", kills, lane.seed, spent=spent)
    print(
        f"kill: {deaths.during.total()} kills, {dict(deaths.during)}, {deaths.finished} runs compared",
        flush=True,
    )
    return deaths.findings


def _faults(lane: Lane, spent: Spent) -> list[str]:
    findings = []
    for name, attempt in FAULTS.items():
        if spent():
            print(f"faults: no time left for {name}", flush=True)
            continue
        before = time.monotonic()
        found = attempt(lane.tiny, lane.folder / name.replace(" ", "-"))
        findings += [f"{name}: {text}" for text in found]
        seconds = time.monotonic() - before
        print(f"faults, {name}: {'as it should be' if not found else 'FOUND'}, {seconds:.0f} s", flush=True)
    return findings


_RUN = {"faults": _faults, "fuzz": _fuzz, "damage": _damage, "kill": _kill}

if __name__ == "__main__":
    sys.exit(main())
