"""Cases of every target in worker processes; what kills or stops a worker is a finding, its bytes are kept."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.fuzz.worker import CURRENT, FINE, keep

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20
"""A case may take."""
MEGABYTES = 2048
"""A case may take beyond what the program itself does."""
BATCH = 1000
"""Cases per process, of all targets together: starting one takes as long as hundreds of cases."""


@dataclass
class Tally:
    """What became of the cases of one target.

    Attributes:
        outcomes: numbers by target and outcome; findings are counted as ``finding``.
        findings: in words.
        slowest: seconds of the slowest case.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, line: Mapping[str, Any]) -> None:
        """Count what a worker tells of a case."""
        fine = line["outcome"] in FINE
        self.outcomes[line["target"], line["outcome"] if fine else "finding"] += 1
        self.slowest = max(self.slowest, float(line["seconds"]))
        if not fine:
            self.findings.append(f"{line['target']} case {line['case']}: {line['outcome']}")

    def lines(self) -> list[str]:
        """What became of each target, in words."""
        targets = dict.fromkeys(target for target, _ in self.outcomes)
        counts = {
            name: {o: n for (target, o), n in self.outcomes.items() if target == name} for name in targets
        }
        return [f"{name}: {found}" for name, found in counts.items()]


def fuzz(
    names: Sequence[str], cases: int, seed: int, folder: Path, *, spent: Callable[[], bool] = lambda: False
) -> Tally:
    """Try the first ``cases`` cases of each target.

    Args:
        names: of the targets; they share processes.
        cases: of each.
        seed: of the mutations.
        folder: scratch; the bytes of findings stay in ``folder/findings``.
        spent: whether the time is up.
    """
    tally = Tally()
    size = max(1, BATCH // len(names))
    batches = [(list(names), first, min(size, cases - first)) for first in range(0, cases, size)]
    while batches and not spent():
        batch = batches.pop(0)
        place = folder / "cases"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for line in _outcomes(*batch, seed, place):
            tally.add(line)
            if line["seconds"] < 0:
                batches = [*_rest(*batch, line), *batches]
        tally.findings += [f"{path}: code from a file was executed" for path in place.glob("*/executed")]
    return tally


Batch = tuple[list[str], int, int]
"""Targets that share a process, and the first and the number of the cases of each."""


def _rest(names: list[str], first: int, count: int, line: Mapping[str, Any]) -> list[Batch]:
    """What is left of a batch behind the case that ended the process."""
    target, done = names.index(line["target"]), int(line["case"]) + 1
    rest = [([names[target]], done, first + count - done), (names[target + 1 :], first, count)]
    return [batch for batch in rest if batch[0] and batch[2]]


def _outcomes(names: list[str], first: int, count: int, seed: int, place: Path) -> Iterator[dict[str, Any]]:
    """What became of one case after another, up to one that ends its process."""
    command = [
        sys.executable,
        "-m",
        "torture.fuzz.worker",
        *names,
        "--seed",
        seed,
        "--first",
        first,
        "--count",
        count,
    ]
    command += ["--folder", place, "--seconds", SECONDS, "--megabytes", MEGABYTES]
    log, told = place.parent / "worker.log", 0
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as worker,
    ):
        assert worker.stdout is not None
        for text in worker.stdout:
            if text.startswith('{"case"'):
                told += 1
                yield json.loads(text)
    if told < count * len(names):
        target, case = names[told // count], first + told % count
        if (place / CURRENT).exists():
            keep(place, target, case)
        last = " | ".join(log.read_text(errors="replace").splitlines()[-12:])
        outcome = f"the process ended with {worker.returncode}: {last}"
        yield {"target": target, "case": case, "outcome": outcome, "seconds": -1}
