"""Settings that suit a data set and a machine, each with its reason.

Small sets get the settings that were measured on sets of 300 photographs (configs/folder.toml), large ones on a
GPU the published recipe (configs/voc_24gb.toml).

The command `init`: look at a folder, write a configuration that suits it and this machine, and check it.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.own import WRITTEN, Found, inspect_folder, stratified_validation
from data.own.lists import NewList, new_list
from data.sources import read_listing
from stages.commands.check import run_check, wrapped
from stages.commands.session import Request
from wsss.config import from_tree
from wsss.errors import UserError
from wsss.store.files import write_text

LARGE = 2000
"""Training photographs from which, on a large enough GPU, the published recipe is used."""

_MEASURED_IMAGES, _MEASURED_SIDE = 294, 320
_SECONDS = 2, 4  # a training photograph over all stages on 2 cores, as measured
_CLASSIFY_STEPS, _SEGMENT_STEPS = 147, 184  # optimiser steps of 16 images of that run


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is there to compute with.

    Attributes:
        cores: of the CPU that this process may use.
        gpu: name of the accelerator; empty for none.
        gpu_gib: its memory, 0 where it does not say.
    """

    cores: int
    gpu: str = ""
    gpu_gib: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What there is to learn from.

    Attributes:
        training: number of training photographs.
        long_side: their typical long side in pixels.
        full: labels come from masks, not tags.
    """

    training: int
    long_side: int
    full: bool = False


@dataclass(frozen=True)
class Setting:
    """One key of the configuration, its value and why; an empty reason prints no comment."""

    section: str
    key: str
    value: Any
    why: str = ""


def this_machine() -> Machine:
    """Look at the machine that this runs on."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Machine(cores=cores, gpu=properties.name, gpu_gib=properties.total_memory / 2**30)
    return Machine(cores=cores, gpu="Apple GPU" if torch.backends.mps.is_available() else "")


def suggest(pictures: Pictures, machine: Machine) -> list[Setting]:
    """Return settings for the sections classify, cams, refine and segment, in the order of the file."""
    large = machine.gpu_gib >= 20 and pictures.training >= LARGE
    settings = _published(pictures, machine) if large else _small(pictures, machine)
    if pictures.full:
        settings.append(
            Setting("segment", "supervision", "full", "there are pixel labels, and tags that teach little")
        )
    return settings


def expected_time(pictures: Pictures, machine: Machine) -> str:
    """Say how long a run may take, as far as it was ever measured."""
    if machine.gpu:
        return f"not measured on this kind of machine ({machine.gpu})"
    passes = (
        _epochs(_CLASSIFY_STEPS, 16, pictures, 4) / 8
    )  # as many as measured: 1; training was 0.8 of the time
    work = pictures.training * (0.8 * passes + 0.2) * 2 / machine.cores / 60
    low, high = _SECONDS[0] * work, _SECONDS[1] * work
    return f"about {max(1, round(low))} to {max(2, round(high))} minutes on {machine.cores} CPU cores"


def _published(pictures: Pictures, machine: Machine) -> list[Setting]:
    frozen = f"published recipe: {pictures.training:,} photographs and {machine.gpu_gib:.0f} GiB of GPU memory allow it"
    return [
        Setting("classify", "backbone", "resnet50", frozen),
        Setting(
            "classify",
            "weights",
            "imagenet",
            "fetched once from the hub; without a network it says which file",
        ),
        Setting("classify", "long_side", [320, 640]),
        Setting("classify", "crop", 512),
        Setting("classify", "epochs", 5),
        Setting("classify", "batch", 16),
        Setting("refine", "preset", "irn"),
        Setting("refine", "threshold", "label-free", _THRESHOLD),
        Setting("segment", "backbone", "resnet101"),
        Setting("segment", "weights", "imagenet"),
        Setting("segment", "head", "aspp"),
        Setting("segment", "long_side", [250, 750]),
        Setting("segment", "crop", 321),
        Setting(
            "segment", "epochs", max(2, round(200_000 / pictures.training)), "20,000 steps of 10 photographs"
        ),
        Setting("segment", "batch", 10),
    ]


_THRESHOLD = (
    "how much of an image is object, chosen from the photographs' colours; to set it yourself: 'fixed' and "
    "background = 0.1 to 0.4"
)


def _small(pictures: Pictures, machine: Machine) -> list[Setting]:
    side = _working_side(pictures, machine)
    batch = max(1, min(16, pictures.training))
    bundled = "ImageNet weights that come with the program: nothing to download"
    reach = max(640, 32 * round(side * 2 / 32)) if pictures.long_side > 640 and not machine.gpu else None
    return [
        Setting("classify", "backbone", "tf_efficientnet_lite0", _backbone_reason(pictures, machine)),
        Setting("classify", "weights", "bundled", bundled),
        Setting(
            "classify",
            "frozen_blocks",
            5,
            "with few photographs a frozen backbone gave better CAMs than a tuned one",
        ),
        Setting("classify", "exits", [3, 4]),
        Setting("classify", "exit_channels", 64),
        Setting("classify", "pool", "lse"),
        Setting("classify", "long_side", _range(side, 0.7, 1.1), _side_reason(pictures, side)),
        Setting("classify", "crop", _grid(side * 0.8)),
        Setting("classify", "epochs", _epochs(_CLASSIFY_STEPS, batch, pictures, 4), _epochs_reason(pictures)),
        Setting("classify", "batch", batch),
        Setting("classify", "optimizer", "adamw"),
        Setting("classify", "lr", 2e-5),
        Setting("classify", "head_lr", 100.0),
        Setting("classify", "weight_sr_f", 0.1),
        Setting("classify", "weight_sr_l", 0.3),
        Setting("cams", "scales", [1.0, 1.5] if not machine.gpu else [1.0, 0.5, 1.5, 2.0]),
        *_reach(
            "cams",
            reach,
            f"larger photographs are reduced to this side: {pictures.long_side} pixels cost too much time here",
        ),
        Setting("refine", "preset", "afa"),
        Setting("refine", "threshold", "label-free", _THRESHOLD),
        *_reach("refine", reach, ""),
        Setting("segment", "backbone", "tf_efficientnet_lite0"),
        Setting("segment", "weights", "bundled"),
        Setting("segment", "output_stride", 16),
        Setting("segment", "frozen_blocks", 2),
        Setting("segment", "exits", [3, 4]),
        Setting("segment", "head", "light"),
        Setting("segment", "head_channels", 128),
        Setting("segment", "long_side", _range(side, 0.6, 1.25)),
        Setting("segment", "crop", _grid(side * 0.6)),
        Setting("segment", "epochs", _epochs(_SEGMENT_STEPS, batch, pictures, 5)),
        Setting("segment", "batch", batch),
        Setting("segment", "optimizer", "adamw"),
        Setting("segment", "lr", 2e-4),
        Setting("segment", "head_lr", 10.0),
        Setting("segment", "weight_sr_l", 0.3),
        *_reach("segment", reach, ""),
    ]


def _backbone_reason(pictures: Pictures, machine: Machine) -> str:
    if not machine.gpu:
        return "small enough for a CPU"
    if pictures.training < LARGE:
        return f"{pictures.training:,} photographs are too few to tune a large one"
    return f"{machine.gpu} has too little memory, or does not say how much, for the published ones"


def _working_side(pictures: Pictures, machine: Machine) -> int:
    """Return the long side that training works at: as measured, on a GPU up to 512 where the photographs have it."""
    return _MEASURED_SIDE if not machine.gpu else min(512, max(_MEASURED_SIDE, _grid(pictures.long_side)))


def _side_reason(pictures: Pictures, side: int) -> str:
    verb = (
        "enlarged"
        if pictures.long_side < side * 0.7
        else "reduced"
        if pictures.long_side > side * 1.1
        else "used"
    )
    return f"photographs of {pictures.long_side} pixels are {verb} at about {side}, drawn anew for each view"


def _epochs(steps: int, batch: int, pictures: Pictures, least: int) -> int:
    return min(40, max(least, round(steps * 16 / max(batch, pictures.training))))


def _epochs_reason(pictures: Pictures) -> str:
    if pictures.training < _MEASURED_IMAGES / 2:
        return "more passes over few photographs, at most 40"
    return "about as many steps as were measured to do well, and no fewer passes than 4"


def _range(side: int, low: float, high: float) -> list[int]:
    return [16 * round(side * low / 16), 16 * round(side * high / 16)]


def _grid(value: float) -> int:
    """Return the nearest multiple of 32, the stride of the deepest maps; at least 64."""
    return max(64, 32 * round(value / 32))


def _reach(section: str, side: int | None, why: str) -> Sequence[Setting]:
    return [Setting(section, "max_side", side, why)] if side else []


_CONFIG, _LIST = WRITTEN
_SAMPLED = 500  # photographs whose size is looked at


def run_init(folder: Path, workspace: Path, *, val: float, force: bool) -> None:
    """Recognise the folder, write wsss.toml (and wsss_labels.csv where it has no list of ours), check the result."""
    root = folder.expanduser().resolve()
    _refuse_overwriting(root, force)
    found = inspect_folder(root)
    print(f"found: {found.what}")
    written = _list_of(found, val)
    problems = [*found.problems, *(written.problems if written else ())]
    for problem in problems:
        print(wrapped(f"problem: {problem}"))
    data: dict[str, object] = dict(found.data)
    if written:
        write_text(root / _LIST, written.text)
        data = {"source": "folder", "labels": _LIST, "images": written.images}
    machine = this_machine()
    pictures = _pictures(root, data, written)
    name = re.sub(r"[^\w .+-]", "_", root.name).lstrip(" .+-")[:100] or "mine"
    path = root / _CONFIG
    write_text(
        path,
        config_text(path, name, found, data, suggest(pictures, machine), expected_time(pictures, machine)),
    )
    print(
        f"written: {', '.join(str(root / item) for item in ((_LIST, _CONFIG) if written else (_CONFIG,)))}\n"
    )
    run_check(Request(config=path, overrides=(), name=name, workspace=workspace), duplicates=False)
    if found.rows and not any(row.split == "val" for row in (written or found).rows):
        print(
            f"\nNo validation split: `init {shlex.quote(str(folder))} --val 0.2 --force` sets every fifth photograph "
            "aside, stratified by tags."
        )


def config_text(
    path: Path, name: str, found: Found, data: Mapping[str, object], settings: Sequence[Setting], time: str
) -> str:
    """The configuration with a reason for each choice, checked against what the configuration accepts."""
    lines = [
        f"# Found: {found.what}.",
        f"#   run_pipeline.py run --config {shlex.quote(str(path))} --name {shlex.quote(name)}",
        f"# Expect: {time}.",
        "seed = 0",
        "",
        "[data]",
        *(
            f"{key} = {json.dumps(value, ensure_ascii=False)}"
            for key, value in {"source": "folder", "root": ".", **data}.items()
        ),
    ]
    tree: dict[str, dict[str, object]] = {}
    for section, members in groupby(settings, key=lambda setting: setting.section):
        lines += ["", f"[{section}]"]
        for setting in members:
            lines += [f"# {setting.why}"] if setting.why else []
            lines.append(f"{setting.key} = {json.dumps(setting.value)}")
            tree.setdefault(section, {})[setting.key] = setting.value
    from_tree({"data": dict(data), **tree}, origin=str(path))
    return "\n".join(lines) + "\n"


def _refuse_overwriting(root: Path, force: bool) -> None:
    there = [name for name in WRITTEN if (root / name).exists()]
    if there and not force:
        raise UserError(f"{root / there[0]}: exists already; --force writes {' and '.join(WRITTEN)} anew")


def _list_of(found: Found, val: float) -> NewList | None:
    """The list to write, or None where the folder is read as it is."""
    if val and not found.rows:
        raise UserError(
            f"--val {val}: {found.what} has splits of its own. Expected no --val: change its lists."
        )
    if val and any(row.split == "val" for row in found.rows):
        raise UserError(f"--val {val}: {found.what} has a validation split already. Expected no --val.")
    if not found.rows or (found.listed and not val):
        return None
    rows = new_list(found.rows)
    if not val:
        return rows
    split = new_list(stratified_validation(rows.rows, val))
    return replace(split, problems=rows.problems)


def _pictures(root: Path, data: Mapping[str, object], written: NewList | None) -> Pictures:
    """Count the training photographs and look at the sizes of some."""
    if written:
        paths = [root / row.image for row in written.rows if row.split == "train"]
    else:
        config = from_tree({"data": {**data, "root": str(root)}}, origin=str(root)).data
        paths = [entry.image for entry in read_listing(config).entries if entry.split == config.train_split]
    step = -(-len(paths) // _SAMPLED) or 1
    sides = [side for path in paths[::step] if (side := _long_side(path))]
    return Pictures(
        training=len(paths),
        long_side=int(np.median(sides)) if sides else 1,
        full=data.get("source") == "cityscapes",
    )


def _long_side(path: Path) -> int:
    """The long side as the file's header says; 0 for a file that the check will name."""
    try:
        with Image.open(path) as image:
            return max(image.size)
    except Exception:  # Pillow raises almost anything on damaged files
        return 0
