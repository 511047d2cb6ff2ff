"""Cases of every target in worker processes; what kills or stops a worker is a finding, its bytes are kept."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torture.fuzz.worker import CURRENT, FINE, keep

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20
"""A case may take."""
MEGABYTES = 2048
"""A case may take beyond what the program itself does."""
BATCH = 250
"""Cases per process."""


@dataclass
class Tally:
    """What became of the cases of one target.

    Attributes:
        outcomes: numbers by outcome; findings are counted as ``finding``.
        findings: in words.
        slowest: seconds of the slowest case.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0


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
    tally, first = Tally(), 0
    while first < cases and not spent():
        place = folder / "cases"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        count = min(BATCH, cases - first)
        first += count
        for line in _outcomes(names, seed, first - count, count, place):
            outcome = str(line["outcome"])
            tally.slowest = max(tally.slowest, float(line["seconds"]))
            tally.outcomes[outcome if outcome in FINE else "finding"] += 1
            if outcome not in FINE:
                tally.findings.append(f"{line['target']} case {line['case']}: {outcome}")
            if line["seconds"] < 0 and len(names) == 1:
                first = int(line["case"]) + 1  # go on behind the case that ended the process
        tally.findings += [f"{path}: code from a file was executed" for path in place.glob("*/executed")]
    return tally


def _outcomes(
    names: Sequence[str], seed: int, first: int, count: int, place: Path
) -> Iterator[dict[str, Any]]:
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
