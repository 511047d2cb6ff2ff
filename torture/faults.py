"""Faults of the machine: a full disk, a read-only or vanished folder, few descriptors, dead and starved workers.

Each must end the command with a message of at most three lines, and the next run must come to the same bits.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from torture.kill import UNDER_WAY, stopped
from torture.tiny import Tiny, hashes, leftovers, undisturbed

LINES = 3
"""Lines that the message may have."""
DESCRIPTORS = (8, 15, 20, 29, 48)
"""Limits of open files: far too few, and on both sides of what is enough."""
HANGING = 120.0
"""Seconds after which a run under a fault is taken to hang."""


def limited(kind: int, value: int) -> Callable[[], None]:
    """What a new process does first to live under a limit; a file that grows too large is then an error."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (value, value))

    return limit


def large_files(tiny: Tiny, workspace: Path) -> list[str]:
    """No file above 5 MB: what a full disk looks like to the program."""
    return _faulty(tiny, workspace, preexec_fn=limited(resource.RLIMIT_FSIZE, 5_000_000))


def few_descriptors(tiny: Tiny, workspace: Path) -> list[str]:
    """Too few open files, by several limits: refused before anything is computed, or enough. The last one goes on."""
    findings = []
    for limit in DESCRIPTORS:
        last = limit == DESCRIPTORS[-1]
        under = limited(resource.RLIMIT_NOFILE, limit)
        found = _faulty(tiny, workspace, preexec_fn=under, may_succeed=True, go_on=last)
        findings += [f"{limit} open files: {text}" for text in found]
    return findings


def read_only(tiny: Tiny, workspace: Path) -> list[str]:
    """A workspace that is none: root may write where others may not, so a file stands in its place."""
    workspace.write_text("")
    findings = _faulty(tiny, workspace, go_on=False)
    workspace.unlink()
    return findings


def vanished(tiny: Tiny, workspace: Path) -> list[str]:
    """The photographs go while the run works, and come back."""
    images, away = tiny.root / "images", tiny.root / "away"
    findings = _faulty(tiny, workspace, disturb=lambda _: images.rename(away), go_on=False)
    away.rename(images)
    return findings + _goes_on(tiny, workspace)


def dead_worker(tiny: Tiny, workspace: Path) -> list[str]:
    """A process that the run has started is killed, as a system short of memory does."""
    return _faulty(tiny, workspace, disturb=_kill_a_child)


def together(tiny: Tiny, workspace: Path) -> list[str]:
    """Two runs at once: each stage is computed once, and both come to the same end."""
    first, second = tiny.start(workspace), tiny.start(workspace)
    outputs = [process.communicate(timeout=1200)[0] for process in (first, second)]
    findings = [] if first.returncode == second.returncode == 0 else [f"two runs at once: {outputs}"]
    for stage in ("classify", "cams", "refine", "segment"):
        times = sum(bool(re.search(rf"^{stage} +computed", output, re.MULTILINE)) for output in outputs)
        findings += [f"{stage} was computed {times} times"] * (times != 1)
    return findings


def asked_to_stop(tiny: Tiny, workspace: Path) -> list[str]:
    """Ctrl-C and SIGTERM, to the run alone and to all of its processes."""
    workspace.mkdir()
    findings = [
        each
        for everybody in (False, True)
        for number, after in ((signal.SIGINT, 1.0), (signal.SIGTERM, 3.0))
        for each in stopped(tiny, workspace, number, after, everybody=everybody)
    ]
    shutil.rmtree(workspace)
    return findings


def full_disk(tiny: Tiny, workspace: Path) -> list[str]:
    """A file system of 8 MB; where none can be mounted, nothing is found."""
    workspace.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(workspace)], capture_output=True
    )
    if mounted.returncode:
        workspace.rmdir()
        return []
    try:
        return _faulty(tiny, workspace, go_on=False)
    finally:
        subprocess.run(["umount", str(workspace)], check=True)
        workspace.rmdir()


FAULTS: dict[str, Callable[[Tiny, Path], list[str]]] = {
    "large files": large_files,
    "full disk": full_disk,
    "few descriptors": few_descriptors,
    "read-only": read_only,
    "vanished": vanished,
    "dead worker": dead_worker,
    "two at once": together,
    "asked to stop": asked_to_stop,
}


def _faulty(
    tiny: Tiny,
    workspace: Path,
    *,
    disturb: Callable[[int], object] | None = None,
    go_on: bool = True,
    may_succeed: bool = False,
    preexec_fn: Callable[[], None] | None = None,
) -> list[str]:
    """Run under a fault; returns what is wrong with how it ended, and with the run after it."""
    process = tiny.start(workspace, preexec_fn=preexec_fn)
    assert process.stdout is not None
    watch = threading.Timer(HANGING, os.killpg, (process.pid, signal.SIGKILL))
    watch.start()
    seen = []
    for line in process.stdout:
        seen.append(line)
        if UNDER_WAY in line and disturb:
            threading.Thread(target=disturb, args=(process.pid,), daemon=True).start()
    status = process.wait()
    watch.cancel()
    findings = []
    output = "".join(seen)
    if "Traceback" in output or (status not in (1, 2) and not (may_succeed and status == 0)):
        findings.append(f"exit status {status}: {output[-800:]}")
    elif status and len(output[output.rfind("error: ") :].strip().splitlines()) > LINES:
        findings.append(f"a long message: {output[output.rfind('error: ') :]}")
    return findings + (_goes_on(tiny, workspace) if go_on else [])


def _goes_on(tiny: Tiny, workspace: Path) -> list[str]:
    """What is wrong after the fault is gone."""
    status, output = tiny.finish(workspace)
    if status:
        return [f"did not go on, exit status {status}: {output[-800:]}"]
    left = leftovers(workspace)
    whole = undisturbed(tiny, workspace.with_name("whole"))
    other = [] if whole.hashes == hashes(workspace) else ["came to other bits"]
    shutil.rmtree(workspace)
    return other + [f"left over: {left}"] * bool(left)


def _kill_a_child(pid: int) -> None:
    """Kill the first worker that a process starts."""
    while Path(f"/proc/{pid}").exists():
        tasks = Path(f"/proc/{pid}/task/{pid}/children")
        for child in tasks.read_text().split() if tasks.exists() else []:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                time.sleep(0.5)
                os.kill(int(child), signal.SIGKILL)
                return
        time.sleep(0.02)
