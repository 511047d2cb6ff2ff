"""SIGKILL at random moments, children included, and the same command again until it is done: the same bits."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from torture.tiny import Tiny, hashes, leftovers

UNDER_WAY = "training and"
"""In the first line that a run prints: before it, nothing is computed."""
PATIENCE = 30.0
"""Seconds in which a run must heed a request to stop, on a machine that is not busy with other things."""


@dataclass
class Deaths:
    """What became of the runs that were killed.

    Attributes:
        kills: how many.
        finished: runs that came to their end between kills; each was compared.
        during: kills by the stage that was under way.
        findings: in words.
    """

    kills: int = 0
    finished: int = 0
    during: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def kill_anywhere(
    tiny: Tiny, folder: Path, kills: int, seed: int, *, spent: Callable[[], bool] = lambda: False
) -> Deaths:
    """Kill and go on; whenever a run gets through, compare it and begin anew.

    Args:
        tiny: the pipeline.
        folder: scratch.
        kills: how many.
        seed: of the moments.
        spent: whether the time is up.
    """
    wanted, seconds = undisturbed(tiny, folder / "whole")
    random = np.random.default_rng([seed, 1])
    deaths = Deaths()
    workspace = folder / "killed"
    while deaths.kills < kills and not spent():
        killed = _killed(tiny, workspace, float(random.uniform(0, seconds / 2)))
        if killed:
            deaths.kills += 1
            deaths.during[_stage(workspace)] = deaths.during.get(_stage(workspace), 0) + 1
        else:
            _compare(workspace, wanted, deaths)
    if workspace.exists():
        status, output = tiny.finish(workspace)
        if status:
            deaths.findings.append(f"exit status {status} after {deaths.kills} kills: {output[-600:]}")
        _compare(workspace, wanted, deaths)
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
    while UNDER_WAY not in process.stdout.readline():
        pass
    time.sleep(after)
    (os.killpg if everybody else os.kill)(process.pid, number)
    asked = time.monotonic()
    output = process.communicate(timeout=600)[0]
    took = time.monotonic() - asked
    if process.returncode == 0:
        return []  # it was done before
    findings = [] if took < patience else [f"{number.name}: it took {took:.0f} s to stop"]
    if process.returncode != 130 or "the same command goes on" not in output or "Traceback" in output:
        findings.append(f"{number.name}: exit status {process.returncode}: {output[-400:]}")
    return findings


def undisturbed(tiny: Tiny, workspace: Path) -> tuple[dict[str, str], float]:
    """Artifacts of a run that nobody disturbs, and the seconds that it computed."""
    process = tiny.start(workspace)
    assert process.stdout is not None
    while line := process.stdout.readline():
        if UNDER_WAY in line:
            started = time.monotonic()
    output = process.communicate()[0]
    if process.returncode or leftovers(workspace):
        raise RuntimeError(f"the undisturbed run failed or left {leftovers(workspace)}: {output[-600:]}")
    return hashes(workspace), time.monotonic() - started


def _killed(tiny: Tiny, workspace: Path, after: float) -> bool:
    """Kill a run ``after`` seconds of computing; False where it was done before."""
    process = tiny.start(workspace)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and UNDER_WAY not in line:
        pass
    ended = time.monotonic() + after
    while time.monotonic() < ended and process.poll() is None:
        time.sleep(0.01)
    done = process.poll() is not None
    if not done:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return not done


def _compare(workspace: Path, wanted: dict[str, str], deaths: Deaths) -> None:
    found = hashes(workspace)
    if found != wanted:
        wrong = sorted(name for name in wanted if found.get(name) != wanted[name])
        deaths.findings.append(f"after {deaths.kills} kills: other bits or none: {wrong}")
    if leftovers(workspace):
        deaths.findings.append(f"after {deaths.kills} kills: left over: {leftovers(workspace)}")
    deaths.finished += 1
    shutil.rmtree(workspace)


def _stage(workspace: Path) -> str:
    done = {path.parent.name for path in (workspace / "artifacts").glob("*/*.h5")}
    return next((name for name in ("classify", "cams", "refine", "segment") if name not in done), "report")
