"""One process that tries cases of some targets and tells what became of each, a JSON line per case.

The case's bytes are on disk before they are tried, so that what kills this process can be looked at.
"""

import argparse
import faulthandler
import json
import os
import resource
import shutil
import time
import traceback
from pathlib import Path

import numpy as np

from torture.fuzz.guard import ForbiddenError, Guard
from torture.fuzz.targets import TARGETS, Target, case_of, prepared
from wsss.errors import UserError
from wsss.store.artifacts import DamagedArtifactError

LINES = 3
"""Lines that a message may have."""
CURRENT = "current.case"
"""The case that is being tried."""
FINE = ("ok", "message")
"""Outcomes that are no findings."""


def main() -> None:
    """Try the cases that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="+", choices=sorted(TARGETS))
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="of each target")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=int, required=True, help="a case may take")
    parser.add_argument(
        "--megabytes", type=int, required=True, help="a case may take beyond the program itself"
    )
    options = parser.parse_args()
    targets = {name: prepared(name, options.folder / name) for name in options.targets}
    guard = Guard()
    _limit_memory(options.megabytes)
    for name, target in targets.items():
        guard.folder = os.path.realpath(options.folder / name)
        for number in range(options.first, options.first + options.count):
            random = np.random.default_rng([options.seed, *name.encode(), number])
            content = case_of(target, number, random)
            for file in (target.file, options.folder / CURRENT):
                file.write_bytes(content)
            faulthandler.dump_traceback_later(options.seconds, exit=True)
            started = time.monotonic()
            outcome = _tried(target, guard)
            faulthandler.cancel_dump_traceback_later()
            if outcome not in FINE:
                keep(options.folder, name, number)
            seconds = round(time.monotonic() - started, 3)
            print(
                json.dumps({"case": number, "target": name, "seconds": seconds, "outcome": outcome}),
                flush=True,
            )


def keep(folder: Path, target: str, number: int) -> None:
    """Keep the bytes of the case that is being tried."""
    kept = folder.parent / "findings"
    kept.mkdir(exist_ok=True)
    shutil.copyfile(folder / CURRENT, kept / f"{target}-{number}")


def _tried(target: Target, guard: Guard) -> str:
    """``ok``, ``message``, or what is wrong."""
    guard.seen.clear()
    guard.watching = True
    try:
        target.attempt()
        result = "ok"
    except (UserError, DamagedArtifactError) as error:
        result = "message" if str(error).count("\n") < LINES else f"long message: {error}"
    except ForbiddenError as error:
        result = f"forbidden: {error}"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        result = f"{type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
        traceback.print_exc()
    finally:
        guard.watching = False
    return f"forbidden: {guard.seen[0]}" if guard.seen else result


def _limit_memory(megabytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
