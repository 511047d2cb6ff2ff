"""The command `init`: look at a folder, write a configuration that suits it and this machine, and check it.

Small sets get the settings that were measured on sets of 300 images (configs/folder.toml, or configs/defects.toml where
the images look like surfaces with defects), large ones on a GPU the published recipe (configs/voc_24gb.toml); what
depends on the images or the machine is changed, each with its reason.
"""

import dataclasses
import json
import os
import re
import shlex
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.cache import Memory, examine_files, stamps_of
from data.own import (
    WRITTEN,
    Found,
    Wanted,
    inspect_folder,
    list_text,
    new_list,
    stratified_validation,
    suspicious,
)
from data.sources import read_listing
from data.survey import Survey
from stages.commands.check import arguments, look, verdict, wrapped
from stages.commands.session import Request
from stages.workspace import Workspace
from wsss.config import from_tree
from wsss.errors import MaskError, UserError, plural
from wsss.store.files import write_text

LARGE = 2000
"""Training images from which on, on a large enough GPU, the published recipe is used."""

Settings = dict[str, tuple[Any, str]]
"""``section.key`` -> value and why; an empty reason prints no comment."""

_PRESETS = Path(__file__).parents[2] / "configs"
_CONFIG, _LIST = WRITTEN
_SAMPLED, _OPENED = 500, 40  # images whose size, and whose colours are looked at
_COLOUR = 8  # largest difference of an image's channels that is still gray: JPEG's rounding
_WITHOUT_TAGS = (
    0.1  # share of images without any tag from which on they are taken for surfaces without defect
)
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
    """What there is to learn from.

    Attributes:
        training: number of images.
        long_side: the typical one, in pixels.
        full: whether masks are learned.
        without_tags: number of the images that have no tag.
        gray: whether none of them has colours.
    """

    training: int
    long_side: int
    full: bool = False
    without_tags: int = 0
    gray: bool = False

    @property
    def defects(self) -> str:
        """Why the images may be surfaces with small defects; empty if they may not."""
        if self.without_tags and self.without_tags >= _WITHOUT_TAGS * self.training:
            return f"{self.without_tags:,} of {self.training:,} images have no tag"
        return "the images are gray" if self.gray else ""


def run_init(
    folder: Path,
    workspace: Path,
    *,
    val: float | None,
    force: bool,
    look_only: bool,
    out: Path | None,
    wanted: Wanted,
) -> None:
    """Recognise the folder, check it, then write wsss.toml (and wsss_labels.csv where it has no list of ours).

    Args:
        folder: of the images.
        workspace: remembers the checked files.
        val: share of the training images to set aside.
        force: replace what is there.
        look_only: write nothing.
        out: where the files are written instead of the folder.
        wanted: what the user said of the folder.
    """
    if val is not None and not 0 < val <= 0.5:
        raise UserError(f"--val {val:g}: expected a number above 0 and at most 0.5, such as 0.2")
    root = folder.expanduser().resolve()
    place = (out or root).expanduser().resolve()
    there = [name for name in WRITTEN if (place / name).exists()]
    if there and not force and not look_only:
        raise UserError(f"{place / there[0]}: exists already; --force replaces {' and '.join(WRITTEN)}")
    places = [_inside(root, value) for value in (wanted.list, wanted.images, wanted.masks)]
    wanted = dataclasses.replace(wanted, list=places[0], images=places[1], masks=places[2])
    found = inspect_folder(root, wanted)
    print(f"found: {found.what}")
    name = re.sub(r"[^\w .+-]", "_", root.name).lstrip(" .+-")[:100] or "mine"
    with tempfile.TemporaryDirectory() as temporary:  # nothing is left behind by a check that fails
        kept = Path(temporary, "workspace") if look_only else workspace
        new = _new_list(_without_unreadable(found, root, kept), val)
        problems = [*(new or found).problems, *suspicious((new or found).entries)]
        for note in (new or found).notes:
            print(wrapped(f"note: {note}"))
        for problem in problems:
            print(wrapped(f"problem: {problem}"))
        print()
        request = Request(config=Path(temporary, _CONFIG), overrides=(), name=name, workspace=kept)
        try:
            survey = _checked(request, root, found, new)
        except MaskError as error:
            if found.data.get("source") == "cityscapes":  # its masks are learned from
                raise
            found = dataclasses.replace(found, data={**found.data, "masks": ""})
            new = new and dataclasses.replace(new, data={**new.data, "masks": ""})
            problems.append(f"masks not used: {error}\nCorrect them, then: init --force")
            print(f"problem: {problems[-1]}\n")
            survey = _checked(request, root, found, new)
    survey = dataclasses.replace(survey, problems=(*problems, *survey.problems))
    print(f"\n{verdict(survey)}.")
    texts = _written(place, root, found, new, name)
    if look_only:
        print("Nothing is written: the same without --look writes " + " and ".join(texts))
        return
    for file, text in texts.items():
        _write(place / file, text, folder)
    print(f"written: {', '.join(str(place / file) for file in texts)}")
    request = Request(config=place / _CONFIG, overrides=(), name=name, workspace=workspace)
    print(f"  run_pipeline.py run {arguments(request)}")
    if found.entries and not any(entry.split == "val" for entry in (new or found).entries):
        again = " ".join(["init", shlex.quote(str(folder)), *_said(wanted, out), "--val 0.2 --force"])
        print(f"\nNo validation split: `{again}` sets every fifth image aside, stratified by tags.")


def _checked(request: Request, root: Path, found: Found, new: Found | None) -> Survey:
    """Write what a run would read where nobody sees it, and check it."""
    assert request.config
    assert request.name
    place = request.config.parent
    for file, text in _written(place, root, found, new, request.name).items():
        (place / file).write_text(text, encoding="utf-8")
    return look(request)


def _inside(root: Path, value: str) -> str:
    """A file or folder that was named relative to the folder, or to where the command runs."""
    if value in ("", "none") or (root / value).exists():
        return value
    path = Path(value).expanduser().resolve()
    if not path.exists():
        raise UserError(f"{value}: no such file or folder in {root}, nor here")
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _said(wanted: Wanted, out: Path | None) -> list[str]:
    """The options that say the same again."""
    options = {"--list": wanted.list, "--images": wanted.images, "--masks": wanted.masks}
    options |= {"--image-column": wanted.image_column, "--tag-columns": ",".join(wanted.tag_columns)}
    options["--out"] = str(out or "")
    return [f"{option} {shlex.quote(value)}" for option, value in options.items() if value]


def _write(path: Path, text: str, folder: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}). Correct the rights, or write elsewhere: "
            f"init {shlex.quote(str(folder))} --out DIR"
        ) from error


def _without_unreadable(found: Found, root: Path, workspace: Path) -> Found:
    """Leave out images that cannot be read; they are read once, and remembered."""
    if not found.entries:
        return found
    paths = [str(root / entry.image) for entry in found.entries]
    memory = Memory(Workspace(workspace.expanduser().resolve()).file_index(str(root)))
    facts = examine_files(paths, stamps_of(paths), memory=memory, progress=True)
    pairs = zip(found.entries, facts, strict=True)
    bad = {entry.image: str(error) for entry, error in pairs if isinstance(error, UserError)}
    if not bad:
        return found
    if len(bad) == len(facts):
        raise UserError(f"no image can be read, the first because: {next(iter(bad.values()))}")
    image, reason = next(iter(bad.items()))
    told = f"{image}: {reason.removeprefix(f'{root / image}: ').split(':')[0]}"
    return dataclasses.replace(
        found,
        listed=False,
        entries=tuple(entry for entry in found.entries if entry.image not in bad),
        problems=(*found.problems, f"left out: {plural(len(bad), 'image')} that cannot be read ({told})"),
    )


def _written(place: Path, root: Path, found: Found, new: Found | None, name: str) -> dict[str, str]:
    """The texts of the files, by name, as they are in the folder ``place``."""
    given = (new or found).data
    data: dict[str, object] = {"source": "folder", "root": "." if place == root else str(root), **given}
    texts = {}
    if new:
        texts[_LIST] = list_text(new)
        data["labels"] = _LIST if place == root else str(place / _LIST)
    images, machine = _look_at_images(root, data, new), this_machine()
    path = place / _CONFIG
    head = [
        f"Found: {found.what}.",
        f"  run_pipeline.py run --config {shlex.quote(str(path))} --name {shlex.quote(name)}",
        f"Expect: {expected_time(images, machine)}.",
    ]
    texts[_CONFIG] = config_text(head, data, suggest(images, machine), origin=str(path))
    return texts


def suggest(images: Images, machine: Machine) -> Settings:
    """Settings for the sections classify, cams, refine and segment."""
    large = machine.gpu_gib >= 20 and images.training >= LARGE
    file = "voc_24gb.toml" if large else "defects.toml" if images.defects else "folder.toml"
    preset = tomllib.loads((_PRESETS / file).read_text(encoding="utf-8"))
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
        settings["refine.threshold"] = (
            "label-free",
            "how much of an image is object, chosen from the images' colours; to set it yourself: 'fixed' and "
            "background = 0.1 to 0.4",
        )
    else:
        settings |= _small(images, machine)
    if images.full:
        settings["segment.supervision"] = ("full", "there are pixel labels, and tags that teach little")
    return settings


def _small(images: Images, machine: Machine) -> Settings:
    """What differs from the measured settings, or needs a reason."""
    side = _MEASURED_SIDE  # that training works at: on a GPU up to 512 where the images have it
    if machine.gpu:
        side = min(512, max(side, _grid(images.long_side)))
    batch, half = (max(1, min(size, images.training)) for size in (16, 8))
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
        "refine.background": (0.5, "smaller: more of an image is object; larger: less"),
        "segment.epochs": (_epochs(_SEGMENT_STEPS, batch, images, 5), ""),
        "segment.batch": (half, ""),
        **(_surface(images, machine) if images.defects else _objects(side)),
    }
    if machine.gpu:
        settings["cams.scales"] = ([1.0, 0.5, 1.5, 2.0], "")
    elif images.long_side > 640:
        why = f"larger images are reduced to this side: {images.long_side} pixels cost too much time here"
        settings |= {"cams.max_side": (640, why), "refine.max_side": (640, ""), "segment.max_side": (640, "")}
    return settings


def _objects(side: int) -> Settings:
    """Views of a segmenter of objects, which come in all sizes."""
    return {
        "segment.long_side": ([16 * round(side * 0.6 / 16), 16 * round(side * 1.25 / 16)], ""),
        "segment.crop": (_grid(side * 0.6), ""),
    }


def _surface(images: Images, machine: Machine) -> Settings:
    """Views of a segmenter of small defects, at the scale at which images are predicted."""
    reduced = min(1.0, (1024 if machine.gpu else 640) / images.long_side)
    why = f"{images.defects}, so they may be surfaces with small defects, whose scale is kept"
    return {
        "segment.zoom": ([max(0.1, round(0.75 * reduced, 2)), max(0.1, round(1.5 * reduced, 2))], why),
        "segment.labelled_crops": (0.75, "most views are laid on a labelled pixel"),
        "segment.class_weights": ("root", "rare labels count more"),
    }


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
    new = new_list(found)
    return dataclasses.replace(new, entries=stratified_validation(new.entries, val)) if val else new


def _look_at_images(root: Path, data: Mapping[str, object], listed: Found | None) -> Images:
    """Count the training images and look at the sizes of some."""
    if listed:
        entries = [entry for entry in listed.entries if entry.split == "train"]
        paths = [root / entry.image for entry in entries]
    else:
        config = from_tree({"data": {**data, "root": str(root)}}, origin=str(root)).data
        listing = read_listing(config)
        entries = [entry for entry in listing.entries if entry.split == config.train_split]
        paths = [listing.images / entry.image for entry in entries]
    full = data.get("source") == "cityscapes"
    sides = [side for path in paths[:: -(-len(paths) // _SAMPLED) or 1] if (side := _long_side(path))]
    return Images(
        training=len(paths),
        long_side=int(np.median(sides)) if sides else 1,
        full=full,
        without_tags=0 if full else sum(not entry.tags for entry in entries),
        gray=not full and all(_is_gray(path) for path in paths[:: -(-len(paths) // _OPENED) or 1]),
    )


def _is_gray(path: Path) -> bool:
    """Whether an image has no colours; a file that the check will name says nothing against it."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (64, 64))
            pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.int16)
    except Exception:  # as in `_long_side`
        return True
    return int(np.ptp(pixels, axis=2).max()) <= _COLOUR


def _long_side(path: Path) -> int:
    """The long side as the file's header says; 0 for a file that the check will name."""
    try:
        with Image.open(path) as image:
            return max(image.size)
    except Exception:  # Pillow raises almost anything on damaged files
        return 0
