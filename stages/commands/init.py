"""The command `init`: look at a folder, write a configuration that suits it and this machine, and check it.

Small sets get the settings that were measured on sets of 300 images (configs/folder.toml), large ones on a GPU the
published recipe (configs/voc_24gb.toml); what depends on the images or the machine is changed, each with its reason.
"""

import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.own import WRITTEN, Found, inspect_folder, list_text, new_list, stratified_validation
from data.sources import read_listing
from stages.commands.check import run_check, wrapped
from stages.commands.session import Request
from wsss.config import from_tree
from wsss.errors import UserError
from wsss.store.files import write_text

LARGE = 2000
"""Training images from which on, on a large enough GPU, the published recipe is used."""

Settings = dict[str, tuple[Any, str]]
"""``section.key`` -> value and why; an empty reason prints no comment."""

_PRESETS = Path(__file__).parents[2] / "configs"
_CONFIG, _LIST = WRITTEN
_SAMPLED = 500  # images whose size is looked at
_MEASURED_IMAGES, _MEASURED_SIDE = 294, 320
_SECONDS = 2, 4  # a training image over all stages on 2 cores, as measured
_CLASSIFY_STEPS, _SEGMENT_STEPS = 147, 184  # optimiser steps of 16 images of that run


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What is there to compute with: CPU cores, the accelerator's name (if any), its memory (0 if unknown)."""

    cores: int
    gpu: str = ""
    gpu_gib: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Images:
    """What there is to learn from: number of images, typical long side in pixels, whether masks are learned."""

    training: int
    long_side: int
    full: bool = False


def run_init(folder: Path, workspace: Path, *, val: float | None, force: bool) -> None:
    """Recognise the folder, write wsss.toml (and wsss_labels.csv where it has no list of ours), check the result."""
    if val is not None and not 0 < val <= 0.5:
        raise UserError(f"--val {val:g}: expected a number above 0 and at most 0.5, such as 0.2")
    root = folder.expanduser().resolve()
    there = [name for name in WRITTEN if (root / name).exists()]
    if there and not force:
        raise UserError(f"{root / there[0]}: exists already; --force replaces {' and '.join(WRITTEN)}")
    found = inspect_folder(root)
    print(f"found: {found.what}")
    listed = _new_list(found, val)
    for problem in (listed or found).problems:
        print(wrapped(f"problem: {problem}"))
    data: dict[str, object] = {"source": "folder", "root": ".", **found.data}
    if listed:
        write_text(root / _LIST, list_text(listed))
        data |= listed.data
    images, machine = _look_at_images(root, data, listed), this_machine()
    name = re.sub(r"[^\w .+-]", "_", root.name).lstrip(" .+-")[:100] or "mine"
    path = root / _CONFIG
    head = [
        f"Found: {found.what}.",
        f"  run_pipeline.py run --config {shlex.quote(str(path))} --name {shlex.quote(name)}",
        f"Expect: {expected_time(images, machine)}.",
    ]
    write_text(path, config_text(head, data, suggest(images, machine), origin=str(path)))
    print(
        f"written: {', '.join(str(root / item) for item in ((_LIST, _CONFIG) if listed else (_CONFIG,)))}\n"
    )
    run_check(Request(config=path, overrides=(), name=name, workspace=workspace), duplicates=False)
    if found.entries and not any(entry.split == "val" for entry in (listed or found).entries):
        print(
            f"\nNo validation split: `init {shlex.quote(str(folder))} --val 0.2 --force` sets every fifth image aside, "
            "stratified by tags."
        )


def suggest(images: Images, machine: Machine) -> Settings:
    """Settings for the sections classify, cams, refine and segment."""
    large = machine.gpu_gib >= 20 and images.training >= LARGE
    preset = tomllib.loads(
        (_PRESETS / ("voc_24gb.toml" if large else "folder.toml")).read_text(encoding="utf-8")
    )
    settings: Settings = {
        f"{section}.{key}": (value, "")
        for section, block in preset.items()
        if section not in ("seed", "data")
        for key, value in block.items()
    }
    if large:
        why = f"published recipe: {images.training:,} images and {machine.gpu_gib:.0f} GiB of GPU memory allow it"
        settings["classify.backbone"] = ("resnet50", why)
        settings["classify.weights"] = (
            "imagenet",
            "fetched once from the hub; without a network it says which file",
        )
        settings["segment.epochs"] = (max(2, round(200_000 / images.training)), "20,000 steps of 10 images")
    else:
        settings |= _small(images, machine)
    settings["refine.threshold"] = (
        "label-free",
        "how much of an image is object, chosen from the images' colours; to set it yourself: 'fixed' and "
        "background = 0.1 to 0.4",
    )
    if images.full:
        settings["segment.supervision"] = ("full", "there are pixel labels, and tags that teach little")
    return settings


def _small(images: Images, machine: Machine) -> Settings:
    """What differs from the measured settings, or needs a reason."""
    side = _MEASURED_SIDE  # that training works at: on a GPU up to 512 where the images have it
    if machine.gpu:
        side = min(512, max(side, _grid(images.long_side)))
    batch = max(1, min(16, images.training))
    verb = (
        "enlarged"
        if images.long_side < side * 0.7
        else "reduced"
        if images.long_side > side * 1.1
        else "used"
    )
    if not machine.gpu:
        why = "small enough for a CPU"
    elif images.training < LARGE:
        why = f"{images.training:,} images are too few to tune a large one"
    else:
        why = f"{machine.gpu} has too little memory, or does not say how much, for the published ones"
    passes = "about as many steps as were measured to do well, and no fewer passes than 4"
    if images.training < _MEASURED_IMAGES / 2:
        passes = "more passes over few images, at most 40"
    settings: Settings = {
        "classify.backbone": ("tf_efficientnet_lite0", why),
        "classify.weights": ("bundled", "ImageNet weights that come with the program: nothing to download"),
        "classify.frozen_blocks": (5, "with few images a frozen backbone gave better CAMs than a tuned one"),
        "classify.long_side": (
            [16 * round(side * 0.7 / 16), 16 * round(side * 1.1 / 16)],
            f"images of {images.long_side} pixels are {verb} at about {side}, drawn for each view",
        ),
        "classify.crop": (_grid(side * 0.8), ""),
        "classify.epochs": (_epochs(_CLASSIFY_STEPS, batch, images, 4), passes),
        "classify.batch": (batch, ""),
        "segment.long_side": ([16 * round(side * 0.6 / 16), 16 * round(side * 1.25 / 16)], ""),
        "segment.crop": (_grid(side * 0.6), ""),
        "segment.epochs": (_epochs(_SEGMENT_STEPS, batch, images, 5), ""),
        "segment.batch": (batch, ""),
    }
    if machine.gpu:
        settings["cams.scales"] = ([1.0, 0.5, 1.5, 2.0], "")
    elif images.long_side > 640:
        why = f"larger images are reduced to this side: {images.long_side} pixels cost too much time here"
        settings |= {"cams.max_side": (640, why), "refine.max_side": (640, ""), "segment.max_side": (640, "")}
    return settings


def _epochs(steps: int, batch: int, images: Images, least: int) -> int:
    return min(40, max(least, round(steps * 16 / max(batch, images.training))))


def _grid(value: float) -> int:
    """The nearest multiple of 32, the stride of the deepest maps; at least 64."""
    return max(64, 32 * round(value / 32))


def expected_time(images: Images, machine: Machine) -> str:
    """How long a run may take, as far as it was ever measured."""
    if machine.gpu:
        return f"not measured on this kind of machine ({machine.gpu})"
    passes = (
        _epochs(_CLASSIFY_STEPS, 16, images, 4) / 8
    )  # as many as measured: 1; training was 0.8 of the time
    work = images.training * (0.8 * passes + 0.2) * 2 / machine.cores / 60
    low, high = _SECONDS[0] * work, _SECONDS[1] * work
    return f"about {max(1, round(low))} to {max(2, round(high))} minutes on {machine.cores} CPU cores"


def this_machine() -> Machine:
    """Look at the machine that this runs on."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Machine(cores=cores, gpu=properties.name, gpu_gib=properties.total_memory / 2**30)
    return Machine(cores=cores, gpu="Apple GPU" if torch.backends.mps.is_available() else "")


def config_text(head: list[str], data: Mapping[str, object], settings: Settings, *, origin: str) -> str:
    """The configuration with a reason for each choice, checked against what the configuration accepts."""
    tree: dict[str, dict[str, object]] = {"data": dict(data)}
    lines = [*(f"# {line}" for line in head), "seed = 0", "", "[data]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in data.items()]
    for section in ("classify", "cams", "refine", "segment"):
        tree[section] = {}
        lines += ["", f"[{section}]"]
        for name, (value, why) in settings.items():
            if name.startswith(f"{section}."):
                key = name.removeprefix(f"{section}.")
                lines += [f"# {why}"] if why else []
                lines.append(f"{key} = {json.dumps(value)}")
                tree[section][key] = value
    from_tree(tree, origin=origin)
    return "\n".join(lines) + "\n"


def _new_list(found: Found, val: float | None) -> Found | None:
    """The list to write, or None where the folder is read as it is."""
    if val and not found.entries:
        raise UserError(
            f"--val {val}: {found.what} has splits of its own. Expected no --val: change its lists."
        )
    if val and any(entry.split == "val" for entry in found.entries):
        raise UserError(f"--val {val}: {found.what} has a validation split already. Expected no --val.")
    if not found.entries or (found.listed and not val):
        return None
    listed = new_list(found)
    return replace(listed, entries=stratified_validation(listed.entries, val)) if val else listed


def _look_at_images(root: Path, data: Mapping[str, object], listed: Found | None) -> Images:
    """Count the training images and look at the sizes of some."""
    if listed:
        paths = [root / entry.image for entry in listed.entries if entry.split == "train"]
    else:
        config = from_tree({"data": {**data, "root": str(root)}}, origin=str(root)).data
        listing = read_listing(config)
        paths = [listing.images / e.image for e in listing.entries if e.split == config.train_split]
    step = -(-len(paths) // _SAMPLED) or 1
    sides = [side for path in paths[::step] if (side := _long_side(path))]
    return Images(
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
