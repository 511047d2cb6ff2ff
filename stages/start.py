"""The command `init`: look at a folder, write a configuration that suits it and this machine, and check it."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from data.own import WRITTEN, Found, inspect_folder, stratified_validation
from data.own.lists import NewList, new_list
from data.sources import read_listing
from stages.commands import Request
from stages.inputs import run_check, wrapped
from stages.suggest import Pictures, Setting, expected_time, suggest, this_machine
from wsss.config import from_tree
from wsss.errors import UserError
from wsss.files import write_text

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
