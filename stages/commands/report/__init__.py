"""The report of a run: report.json for programs, report.html for people. Both follow the run's artifacts."""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Dataset
from stages import Planned, software_versions
from stages.commands.report.gallery import Exhibit, exhibits
from stages.commands.report.measure import Measures, scored_images
from stages.commands.report.page import render
from stages.commands.report.values import STAGE_TITLES, Values
from stages.workspace import Run, computed
from wsss.config import Config, to_tree
from wsss.model.weights import weights_identity
from wsss.store.files import digest_of, file_sha256, is_kept, set_aside, write_sealed_json, write_text

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
    keys = {stage: measured.key for stage, measured in subject.measures.measured.items()}
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
