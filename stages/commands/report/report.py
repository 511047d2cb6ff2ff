"""The report of a run: report.json for programs, report.html for people. Both follow the run's artifacts.

The page of a run's report: its figures in words and pictures.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Dataset
from stages import Planned, software_versions
from stages.commands.report.gallery import Exhibit, choose, exhibit
from stages.commands.report.measure import Measures, scored_images
from stages.commands.report.page import render
from stages.commands.report.values import Values
from stages.commands.report.wording import INDICATORS, STAGE_TITLES, stage_sentences
from stages.workspace import Run, computed
from wsss.config import Config, to_tree
from wsss.model.weights import weights_identity
from wsss.store.artifacts import Artifact
from wsss.store.files import digest_of, file_sha256, is_kept, set_aside, write_sealed_json, write_text

SCHEMA = 1
"""Of report.json: raised when a key changes its meaning; docs/report.md describes it."""
SOURCE_VERSION = 3
"""Raised when a page is drawn differently from the same figures, so that old pages are drawn anew."""

TAIL = 256
"""Bytes at the end of report.json that hold its last entries."""
_ENTRIES = re.compile(rb'"page":"(?P<page>[0-9a-f]{64})","material":"(?P<material>[0-9a-f]{16})", "sha256"')


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


def bring_up_to_date(subject: Subject) -> bool:
    """Write report.json and report.html unless both are there and say the same; returns whether they were written."""
    material = _material(subject)
    page, values_file = report_paths(subject.run)
    if _written(page, values_file) == material and page.exists():
        return False
    values = report_values(subject)
    from stages.commands.report.report import page_of  # an unchanged run does without its imports

    html = page_of(values, subject)
    write_text(page, html)
    values |= {"page": hashlib.sha256(html.encode()).hexdigest(), "material": material}
    write_sealed_json(values_file, values)
    return True


def _written(page: Path, values_file: Path) -> str | None:
    """What report.json says of its material, read at its end alone; what is not as it was written is set aside."""
    if not is_kept(values_file, "it is written again"):
        return None
    found = _ENTRIES.search(values_file.read_bytes()[-TAIL:])
    if found is None:
        return None
    if page.exists() and file_sha256(page) != found["page"].decode():
        print(f"{page}: damaged; set aside as {set_aside(page).name}, it is written again")
    return found["material"].decode()


def report_paths(run: Run) -> tuple[Path, Path]:
    """(report.html, report.json) of a run."""
    return run.folder / "report.html", run.folder / "report.json"


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
        "config": settings(subject.config),
        "config_changed": changed(subject),
        "pretraining": pretraining(subject),
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


def changed(subject: Subject) -> list[dict[str, Any]]:
    """Keys in which the configuration differs from the file it started from."""
    used = settings(subject.config)
    if not subject.preset:
        return []
    return [
        {"key": key, "preset": subject.preset[key], "used": value}
        for key, value in used.items()
        if key in subject.preset and subject.preset[key] != value  # an older version knew fewer keys
    ]


def pretraining(subject: Subject) -> list[str]:
    """What the networks knew beforehand, a sentence per training stage that the run has."""
    sentences = []
    for name in ("classify", "segment"):
        section = getattr(subject.config, name)
        if name in subject.planned:
            known = _knowledge(section.weights, weights_identity(section.backbone, section.weights))
            sentences.append(f"{name}: {section.backbone}, {known}")
    return sentences


def _knowledge(weights: str, identity: str) -> str:
    """What stands behind a weights setting, in words."""
    if weights == "none":
        return "random weights, no pretraining"
    if weights == "imagenet":
        return "pretrained on ImageNet (timm's weights of that name)"
    known = "pretrained on ImageNet (bundled weights" if weights == "bundled" else f"weights of {weights} ("
    return f"{known}{', ' if weights == 'bundled' else ''}sha256 {identity[:12]}…)"


def settings(config: Config) -> dict[str, Any]:
    """``section.key`` to value of all that concerns a single run: [ablate] is about several."""
    return {key: value for key, value in flat(to_tree(config)).items() if not key.startswith("ablate.")}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections -> ``section.key``; tuples become lists, as in JSON."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return result


def _material(subject: Subject) -> str:
    keys = subject.measures.keys_of_measures()
    fingerprints = {name: item.stamp.fingerprint for name, item in subject.planned.items() if item.cached}
    parts = [SCHEMA, SOURCE_VERSION, keys, fingerprints, changed(subject), settings(subject.config)]
    return digest_of(parts)


def page_of(values: Values, subject: Subject) -> str:
    """report.html as text; ``values`` is report.json."""
    return render("report.html", **page_context(values, subject))


def page_context(values: Values, subject: Subject) -> dict[str, Any]:
    """What the page's template is given."""
    refine = to_tree(subject.config.refine)
    stages = [
        {
            "name": name,
            "title": STAGE_TITLES[name],
            "values": measured,
            "sentences": stage_sentences(name, dict(measured), refine),
            "exhibits": exhibits_of(name, subject),
        }
        for name, measured in subject.measures.items()
    ]
    return {
        "report": values,
        "stages": stages,
        "indicators": INDICATORS,
        "times": [name for name in subject.planned if f"{name}.fingerprint" in values],
    }


def exhibits_of(stage: str, subject: Subject) -> list[Exhibit]:
    """The pictures of one measured stage."""
    values = dict(subject.measures[stage])
    samples = {sample.id: sample for sample in scored_images(stage, subject.config, subject.dataset).samples}
    artifacts = {
        name: Artifact(item.path)
        for name, item in subject.planned.items()
        if item.cached and name != "classify"
    }
    scores = dict(zip(values["per_image.id"], values["per_image.miou"], strict=True))
    classes = subject.dataset.classes
    try:
        return [
            exhibit(
                group,
                samples[image_id],
                stage,
                artifacts,
                background=values.get("threshold", 0.0),
                classes=classes,
                score=scores[image_id],
            )
            for group, image_id in choose(stage, values, samples, classes)
        ]
    finally:
        for artifact in artifacts.values():
            artifact.close()
