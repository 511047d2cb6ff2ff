"""Files of the workspace flipped, cut, emptied, deleted or replaced: the next run names, keeps and makes them anew."""

import contextlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from stages.commands.run import run_all
from torture.tiny import Tiny, Whole, hashes

Random = np.random.Generator
DAMAGES = ("flip", "cut", "empty", "delete", "version", "foreign")
REBUILT = ("config.toml", "log.jsonl", "overview.png")
"""Files of a run that are no results to be checked: settings to edit, a log, a picture."""


@dataclass
class Damages:
    """What became of the damaged files.

    Attributes:
        done: how many, by kind of file.
        findings: in words.
    """

    done: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def damage_everywhere(
    tiny: Tiny,
    whole: Whole,
    workspace: Path,
    places: int,
    seed: int,
    *,
    spent: Callable[[], bool] = lambda: False,
) -> Damages:
    """Damage one file after another of a finished workspace, and run again after each.

    Args:
        tiny: the pipeline.
        whole: what is copied, and must come out.
        workspace: is made.
        places: how many.
        seed: of the places.
        spent: whether the time is up.
    """
    found = Damages()
    shutil.copytree(whole.workspace, workspace)
    figures = _figures(workspace)
    for number in range(places):
        if spent():
            break
        random = np.random.default_rng([seed, 2, number])
        files = _files(workspace)
        victim = files[number % len(files)]
        how = DAMAGES[int(random.integers(len(DAMAGES)))]
        name = f"{victim.relative_to(workspace)}, {how}"
        before = victim.read_bytes()
        spoil(victim, how, random)
        output = _run(tiny, workspace, found, name)
        found.done[_kind(victim, workspace)] += 1
        _check_told(found, name, how, victim, output)
        if hashes(workspace) != whole.hashes or _figures(workspace) != figures:
            found.findings.append(f"{name}: the next run came to another result")
            shutil.rmtree(workspace)
            shutil.copytree(whole.workspace, workspace)
        elif how != "delete" and victim.read_bytes() != before and not _remade(victim):
            found.findings.append(f"{name}: was not made anew")
    return found


def spoil(file: Path, how: str, random: Random) -> None:
    """Damage a file."""
    content = bytearray(file.read_bytes())
    if how == "delete":
        file.unlink()
    elif how == "version":
        file.write_bytes(bytes(content).replace(b"schema", b"schemo").replace(b"sha256", b"sha255"))
    elif how == "foreign" and file.suffix in (".h5", ".checkpoint"):
        with h5py.File(file, "w") as other:
            other["x"] = 1
    elif how == "foreign":
        file.write_text('{"x": 1}')
    elif how == "flip":
        content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        file.write_bytes(content)
    else:
        file.write_bytes(content[: int(random.integers(len(content))) if how == "cut" else 0])


def _run(tiny: Tiny, workspace: Path, found: Damages, name: str) -> str:
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            run_all(tiny.request(workspace))
    except Exception as error:
        found.findings.append(f"{name}: {type(error).__name__}: {error}")
    return output.getvalue()


def _check_told(found: Damages, name: str, how: str, victim: Path, output: str) -> None:
    """An artifact that was not simply deleted must be named and kept."""
    if victim.suffix != ".h5" or how == "delete":
        return
    aside = sorted(victim.parent.glob(f"{victim.name}.damaged-*"))
    if how == "version" and not aside:
        return  # a file that holds neither word is as it was
    if not aside or str(victim) not in output:
        found.findings.append(f"{name}: not set aside, or not named: {output[-300:]}")
    for path in aside:
        path.unlink()


def _files(workspace: Path) -> Sequence[Path]:
    """All that a run reads again."""
    kinds = ("artifacts/*/*.h5", "artifacts/*/*.json", "scores/*.json", "files-*.json", "tiny/*")
    files = [path for kind in kinds for path in sorted(workspace.glob(kind))]
    return [path for path in files if path.name not in REBUILT and ".damaged-" not in path.name]


def _figures(workspace: Path) -> dict[str, object]:
    """What the report says, without times."""
    report = json.loads((workspace / "tiny" / "report.json").read_bytes())
    return {
        key: value
        for key, value in report.items()
        if key.rsplit(".", 1)[-1] not in ("seconds", "created", "software", "sha256", "page")
    }


def _remade(file: Path) -> bool:
    return file.suffix in (".json", ".html")  # they hold times


def _kind(file: Path, workspace: Path) -> str:
    parts = file.relative_to(workspace).parts
    return (
        f"{parts[1]}{file.suffix}"
        if parts[0] == "artifacts"
        else parts[0].split("-")[0]
        if len(parts) < 3
        else ""
    )
