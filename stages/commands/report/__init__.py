"""The report of a run: report.json for programs, report.html for people, and on request TensorBoard's events."""

import hashlib
import importlib.util
import re
import shutil
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data import Dataset
from stages import Planned, software_versions
from stages.commands.report.gallery import Exhibit, exhibits
from stages.commands.report.measure import Measures, scored_images
from stages.commands.report.page import render
from stages.commands.report.values import STAGE_TITLES, Values
from stages.workspace import Run, computed
from wsss.config import Config, to_tree
from wsss.errors import UserError
from wsss.model.weights import weights_identity
from wsss.store.files import (
    digest_of,
    file_sha256,
    is_kept,
    parse_json,
    set_aside,
    write_sealed_json,
    write_text,
)

AGAIN = "it is written again"
SCHEMA = 1
"""Of report.json: raised when a key changes its meaning; docs/report.md describes it."""
SOURCE_VERSION = 4
"""Raised when a page is drawn differently from the same figures, so that old pages are drawn again."""

_ENDING = re.compile(rb'"page":"([0-9a-f]{64})","material":"([0-9a-f]{16})", "sha256": "[0-9a-f]{64}"}$')
"""Of report.json: read alone, so that an unchanged run need not parse the rest."""


@dataclass(frozen=True)
class Subject:
    """What is reported on.

    Attributes:
        run: the run's folder.
        config: its configuration.
        preset: flat configuration of the file it started from; empty if unknown.
        preset_name: that file's name.
        dataset: its data, with masks where there are any.
        planned: its stages.
        measures: of every measured stage.
    """

    run: Run
    config: Config
    preset: Mapping[str, Any]
    preset_name: str
    dataset: Dataset
    planned: Mapping[str, Planned]
    measures: Measures


def report_paths(run: Run) -> tuple[Path, Path]:
    """(report.html, report.json) of a run."""
    return run.folder / "report.html", run.folder / "report.json"


def bring_up_to_date(subject: Subject) -> bool:
    """Write report.json and report.html unless both are there and say the same; returns whether they were written."""
    keys = {stage: path.name for stage, path in subject.measures.paths.items()}
    fingerprints = {name: item.stamp.fingerprint for name, item in subject.planned.items() if item.cached}
    parts = [SCHEMA, SOURCE_VERSION, keys, fingerprints, _changed(subject), _settings(subject.config)]
    material = digest_of(parts)
    page, values_file = report_paths(subject.run)
    if _written(page, values_file) == material and page.exists():
        return False
    values = report_values(subject)
    html = _page(values, subject)
    write_text(page, html)
    values |= {"page": hashlib.sha256(html.encode()).hexdigest(), "material": material}
    write_sealed_json(values_file, values)
    return True


def _written(page: Path, values_file: Path) -> str | None:
    """What report.json says of its material, read at its end alone; what is not as it was written is set aside."""
    if not is_kept(values_file, AGAIN) or not (found := _ENDING.search(values_file.read_bytes()[-256:])):
        return None
    digest, material = (part.decode() for part in found.groups())
    if page.exists() and file_sha256(page) != digest:
        print(f"{page}: damaged; set aside as {set_aside(page).name}, {AGAIN}", file=sys.stderr)
    return material


def report_values(subject: Subject) -> Values:
    """report.json: flat, one key per figure; a stage's figures start with its name (docs/report.md)."""
    classes = list(subject.dataset.classes)
    values: Values = {
        "schema": SCHEMA,
        "run": subject.run.folder.name,
        "classes": classes,
        "labels": ["background", *classes],
        "seed": subject.config.seed,
        "preset": subject.preset_name,
        "config": _settings(subject.config),
        "config_changed": _changed(subject),
        "pretraining": _pretraining(subject),
        "software": software_versions(),
    }
    for name, item in subject.planned.items():
        if item.cached:
            how = computed(item)
            values |= {
                f"{name}.fingerprint": item.stamp.fingerprint,
                f"{name}.data": item.stamp.data,
                f"{name}.seconds": how.get("seconds"),
                f"{name}.created": how.get("created"),
                f"{name}.software": how.get("software"),
                f"{name}.bytes": item.path.stat().st_size,
            }
    for name, measured in subject.measures.items():
        values |= {f"{name}.{key}": value for key, value in measured.items()}
    return values


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections -> ``section.key``; tuples become lists, as in JSON."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return result


def _settings(config: Config) -> dict[str, Any]:
    """``section.key`` to value of all that concerns a single run: [ablate] is about several."""
    return {key: value for key, value in flat(to_tree(config)).items() if not key.startswith("ablate.")}


def _changed(subject: Subject) -> list[dict[str, Any]]:
    """Keys in which the configuration differs from the file it started from; an older version knew fewer keys."""
    return [
        {"key": key, "preset": subject.preset[key], "used": value}
        for key, value in _settings(subject.config).items()
        if key in subject.preset and subject.preset[key] != value
    ]


def _pretraining(subject: Subject) -> list[str]:
    """What the networks knew beforehand, a sentence per training stage that the run has."""
    sentences = []
    for name in ("classify", "segment"):
        section = getattr(subject.config, name)
        if name in subject.planned:
            digest = weights_identity(section.backbone, section.weights)[:12]
            known = {
                "none": "random weights, no pretraining",
                "imagenet": "pretrained on ImageNet (timm's weights of that name)",
                "bundled": f"pretrained on ImageNet (bundled weights, sha256 {digest}…)",
            }.get(section.weights, f"weights of {section.weights} (sha256 {digest}…)")
            sentences.append(f"{name}: {section.backbone}, {known}")
    return sentences


def stage_exhibits(stage: str, subject: Subject) -> list[Exhibit]:
    """The images that stand for a measured stage."""
    scored = scored_images(stage, subject.config, subject.dataset)
    return exhibits(stage, subject.measures[stage], scored, subject.planned)


def _page(values: Values, subject: Subject) -> str:
    """report.html as text; ``values`` is report.json."""
    stages = [
        {
            "name": name,
            "title": STAGE_TITLES[name],
            "values": measured,
            "exhibits": stage_exhibits(name, subject),
        }
        for name, measured in subject.measures.items()
    ]
    times = [name for name in subject.planned if f"{name}.fingerprint" in values]
    return render("report.html", report=values, stages=stages, times=times)


def require_tensorboard() -> None:
    """Raise UserError where the package is missing: asked before anything long begins."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: the package tensorboard is not installed; pip install tensorboard")


def write_events(subject: Subject) -> Path:
    """Write ``<run>/tensorboard/`` from scratch and return it."""
    from torch.utils.tensorboard import SummaryWriter

    folder = subject.run.folder / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for tag, value, step in [*_training(subject.run.folder / "log.jsonl"), *_quality(subject)]:
            writer.add_scalar(tag, value, step)
        for stage in subject.measures:
            for index, exhibit in enumerate(stage_exhibits(stage, subject)):
                panels = [b64decode(panel.uri.split(",", 1)[1]) for panel in exhibit.panels]
                pictures = [np.asarray(Image.open(BytesIO(panel)).convert("RGB")) for panel in panels]
                tag = f"{stage}/{exhibit.group}/{exhibit.image_id}"
                writer.add_image(tag, np.concatenate(pictures, axis=1), index, dataformats="HWC")
    return folder


def _training(log: Path) -> Iterator[tuple[str, float, int]]:
    """The loss terms of every epoch that the log holds."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            event = parse_json(line)
        except ValueError:  # cut off when a process was killed
            continue
        if isinstance(event, dict) and "epoch" in event:
            for key, value in event.items():
                if isinstance(value, float):
                    yield f"training/{event['stage']}/{key}", value, event["epoch"]


def _quality(subject: Subject) -> Iterator[tuple[str, float, int]]:
    """Single figures at step 0; curves over the threshold, whose step is its hundredths."""
    for stage, values in subject.measures.items():
        for key, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"quality/{stage}/{key}", float(value), 0
            elif key.startswith("curve."):
                for x, y in zip(values["thresholds"], value, strict=True):
                    if y is not None:
                        yield f"quality/{stage}/{key}", y, round(100 * x)
