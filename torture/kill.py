"""SIGKILL at random moments, children included, and the same command again until it is done: the same bits."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from torture.tiny import Tiny, Whole, hashes, leftovers

STAGES = ("classify", "cams", "refine", "segment")
UNDER_WAY = "training and"
"""In the first line that a run prints: before it, nothing is computed."""
PATIENCE = 30.0
"""Seconds in which a run must heed a request to stop, on a machine that is not busy with other things."""
BEYOND = 0.4
"""Seconds after a stage in which its result is recorded and reported: kills fall there too."""


@dataclass
class Deaths:
    """What became of the runs that were killed.

    Attributes:
        during: kills by the stage that was under way.
        finished: runs that came to their end between kills; each was compared.
        findings: in words.
    """

    during: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    findings: list[str] = field(default_factory=list)


def kill_anywhere(
    tiny: Tiny,
    whole: Whole,
    workspace: Path,
    kills: int,
    seed: int,
    *,
    spent: Callable[[], bool] = lambda: False,
) -> Deaths:
    """Kill and go on, stage by stage and each about as often; let the run get through, compare it, begin anew.

    Args:
        tiny: the pipeline.
        whole: what must come out.
        workspace: is made.
        kills: how many.
        seed: of the moments.
        spent: whether the time is up.
    """
    random = np.random.default_rng([seed, 1])
    deaths = Deaths()
    while deaths.during.total() < kills and not spent():
        stage = _next(deaths, workspace)
        if stage and _killed(tiny, workspace, stage, random.uniform(0, whole.seconds[stage] + BEYOND)):
            deaths.during[_under_way(workspace)] += 1
        else:
            _finish(tiny, workspace, whole, deaths)
    if workspace.exists():
        _finish(tiny, workspace, whole, deaths)
    return deaths


def stopped(
    tiny: Tiny,
    folder: Path,
    number: signal.Signals,
    after: float,
    *,
    everybody: bool = False,
    patience: float = PATIENCE,
) -> list[str]:
    """Ask a run to stop, or with ``everybody`` its workers too, as a terminal does; returns what is wrong with how."""
    workspace = folder / f"{number.name}{'-to-all' * everybody}"
    process = tiny.start(workspace)
    assert process.stdout is not None
    said = ""
    while UNDER_WAY not in said and (line := process.stdout.readline()):
        said += line
    time.sleep(after)
    (os.killpg if everybody else os.kill)(process.pid, number)
    asked = time.monotonic()
    output = said + process.communicate(timeout=600)[0]
    took = time.monotonic() - asked
    if process.returncode == 0:
        return []  # it was done before
    findings = [] if took < patience else [f"{number.name}: it took {took:.0f} s to stop"]
    if process.returncode != 130 or "the same command goes on" not in output or "Traceback" in output:
        findings.append(f"{number.name}: exit status {process.returncode}: {output[-400:]}")
    return findings


def _next(deaths: Deaths, workspace: Path) -> str | None:
    """The stage to die in: the first of those to come that has not had more kills than others; None: all have."""
    fewest = min(deaths.during[stage] for stage in STAGES)
    done = _done(workspace)
    wanted = [stage for stage in STAGES if stage not in done and deaths.during[stage] <= fewest + 1]
    return wanted[0] if wanted else None


def _killed(tiny: Tiny, workspace: Path, stage: str, after: float) -> bool:
    """Kill a run ``after`` seconds of a stage; False where it was done before."""
    before = _begun(workspace, stage)
    process = tiny.start(workspace)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and UNDER_WAY not in line:
        pass
    while process.poll() is None and _begun(workspace, stage) == before:
        time.sleep(0.01)
    ended = time.monotonic() + after
    while process.poll() is None and time.monotonic() < ended:
        time.sleep(0.01)
    done = process.poll() is not None
    if not done:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return not done


def _begun(workspace: Path, stage: str) -> int:
    """How often a stage has begun, as the run's log says."""
    log = workspace / "tiny" / "log.jsonl"
    start = json.dumps({"stage": stage, "event": "start"})[1:-1]
    return log.read_text(encoding="utf-8").count(start) if log.exists() else 0


def _finish(tiny: Tiny, workspace: Path, whole: Whole, deaths: Deaths) -> None:
    """Let the run get through, undisturbed now, and compare."""
    kills = deaths.during.total()
    status, output = tiny.finish(workspace)
    if status:
        deaths.findings.append(f"exit status {status} after {kills} kills: {output[-600:]}")
    found = hashes(workspace)
    if found != whole.hashes:
        wrong = sorted(name for name in whole.hashes if found.get(name) != whole.hashes[name])
        deaths.findings.append(f"after {kills} kills: other bits or none: {wrong}")
    if leftovers(workspace):
        deaths.findings.append(f"after {kills} kills: left over: {leftovers(workspace)}")
    deaths.finished += 1
    shutil.rmtree(workspace)


def _done(workspace: Path) -> set[str]:
    return {path.parent.name for path in (workspace / "artifacts").glob("*/*.h5")}


def _under_way(workspace: Path) -> str:
    done = _done(workspace)
    return next((stage for stage in STAGES if stage not in done), "report")
