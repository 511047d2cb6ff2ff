"""The report of a run: report.json for programs, report.html for people, and on request TensorBoard's events."""

import csv
import hashlib
import importlib.util
import shutil
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from data.survey import class_problems
from stages import software_versions
from stages.commands.report.gallery import exhibits
from stages.commands.report.measure import headlines, measure, read_metrics
from stages.commands.report.page import render
from stages.commands.report.values import RESULTS, STAGE_TITLES, Values, advice, answer
from stages.commands.session import Session, settings
from stages.workspace import Run, computed
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
SOURCE_VERSION = 5
"""Raised when a page is drawn differently from the same figures, so that old pages are drawn again."""


class Summary(msgspec.Struct):
    """What report.json says of its making and in short: read alone, so that an unchanged run need not parse the rest.

    ``page`` is the page's sha256, ``material`` a hash of all that both depend on; an older file may lack some.
    """

    answer: str = ""
    advice: list[str] = []
    page: str = ""
    material: str = ""


def read_summary(run: Run) -> Summary:
    """The report in short; there must be one."""
    return msgspec.json.decode(report_paths(run)[1].read_bytes(), type=Summary)


def report_paths(run: Run) -> tuple[Path, Path]:
    """(report.html, report.json) of a run."""
    return run.folder / "report.html", run.folder / "report.json"


def refresh_report(session: Session) -> dict[str, Path]:
    """Measure what is new, bring run.json and the report up to date, and return what `measure` does."""
    measured = measure(session)
    session.run.save(session.config, session.planned, headlines(measured), session.preset)
    if measured:
        _bring_up_to_date(session, measured)
    return measured


def _bring_up_to_date(session: Session, measured: Mapping[str, Path]) -> None:
    """Write report.json and report.html unless both are there and say the same."""
    keys = {stage: path.name for stage, path in measured.items()}
    fingerprints = {name: item.stamp.fingerprint for name, item in session.planned.items() if item.cached}
    parts = [SCHEMA, SOURCE_VERSION, keys, fingerprints, _changed(session), settings(session.config)]
    material = digest_of(parts)
    page, values_file = report_paths(session.run)
    if _written(page, values_file) == material and page.exists():
        return
    metrics = {stage: read_metrics(path) for stage, path in measured.items()}
    values = _values(session, metrics)
    stages = [
        {
            "name": name,
            "title": STAGE_TITLES[name],
            "values": found,
            "exhibits": exhibits(session, name, found),
        }
        for name, found in metrics.items()
    ]
    html = render("report.html", report=values, stages=stages, times=list(fingerprints))
    write_text(page.with_name("review.csv"), review_csv(metrics))
    write_text(page, html)
    values |= {"page": hashlib.sha256(html.encode()).hexdigest(), "material": material}
    write_sealed_json(values_file, values)


def _written(page: Path, values_file: Path) -> str | None:
    """What report.json says of its material; what is not as it was written is set aside."""
    if not is_kept(values_file, AGAIN):
        return None
    found = msgspec.json.decode(values_file.read_bytes(), type=Summary)
    if page.exists() and file_sha256(page) != found.page:
        print(f"{page}: damaged; set aside as {set_aside(page).name}, {AGAIN}", file=sys.stderr)
    return found.material


def _values(session: Session, metrics: Mapping[str, Values]) -> Values:
    """report.json: flat, one key per figure; a stage's figures start with its name (docs/report.md)."""
    classes = list(session.dataset.classes)
    values: Values = {
        "schema": SCHEMA,
        "run": session.run.folder.name,
        "classes": classes,
        "labels": ["background", *classes],
        "seed": session.config.seed,
        "preset": session.preset.get("name", ""),
        "config": settings(session.config),
        "config_changed": _changed(session),
        "pretraining": _pretraining(session),
        "software": software_versions(),
        "answer": answer(metrics),
        "advice": advice(metrics, session.config.refine, _tag_problems(session)),
    }
    for name, item in session.planned.items():
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
    for name, found in metrics.items():
        values |= {f"{name}.{key}": value for key, value in found.items()}
    return values


def _tag_problems(session: Session) -> list[str]:
    training = session.dataset.split(session.config.data.train_split)
    return list(class_problems(training, full=session.config.segment.supervision == "full"))


def review_csv(metrics: Mapping[str, Values]) -> str:
    """The order of review of each result's images, those first that need it most."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["result", "split", "image", "score", "miou"])
    for stage, values in metrics.items():
        columns = [values[f"per_image.{key}"] for key in ("id", "review", "miou")]
        known = [row for row in zip(*columns, strict=True) if row[1] is not None]
        for image, score, miou in sorted(known, key=lambda row: row[1]):
            cells = ["" if value is None else f"{value:.4f}" for value in (score, miou)]
            rows.writerow([RESULTS[stage], values["split"], image, *cells])
    return text.getvalue()


def _changed(session: Session) -> list[dict[str, Any]]:
    """Keys in which the configuration differs from the file it started from; an older version knew fewer keys."""
    preset = session.preset.get("config", {})
    return [
        {"key": key, "preset": preset[key], "used": value}
        for key, value in settings(session.config).items()
        if key in preset and preset[key] != value
    ]


def _pretraining(session: Session) -> list[str]:
    """What the networks knew beforehand, a sentence per training stage that the run has."""
    sentences = []
    for name in ("classify", "segment"):
        section = getattr(session.config, name)
        if name in session.planned:
            digest = weights_identity(section.backbone, section.weights)[:12]
            known = {
                "none": "random weights, no pretraining",
                "imagenet": "pretrained on ImageNet (timm's weights of that name)",
                "bundled": f"pretrained on ImageNet (bundled weights, sha256 {digest}…)",
            }.get(section.weights, f"weights of {section.weights} (sha256 {digest}…)")
            sentences.append(f"{name}: {section.backbone}, {known}")
    return sentences


def require_tensorboard() -> None:
    """Raise UserError where the package is missing: asked before anything long begins."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard: the package tensorboard is not installed; pip install tensorboard")


def write_events(session: Session, measured: Mapping[str, Path]) -> Path:
    """Write ``<run>/tensorboard/`` from scratch and return it."""
    from torch.utils.tensorboard import SummaryWriter

    metrics = {stage: read_metrics(path) for stage, path in measured.items()}
    folder = session.run.folder / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        for tag, value, step in [*_training(session.run.folder / "log.jsonl"), *_quality(metrics)]:
            writer.add_scalar(tag, value, step)
        for stage, values in metrics.items():
            for index, exhibit in enumerate(exhibits(session, stage, values)):
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


def _quality(metrics: Mapping[str, Values]) -> Iterator[tuple[str, float, int]]:
    """Single figures at step 0; curves over the threshold, whose step is its hundredths."""
    for stage, values in metrics.items():
        for key, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"quality/{stage}/{key}", float(value), 0
            elif key.startswith("curve."):
                for x, y in zip(values["thresholds"], value, strict=True):
                    if y is not None:
                        yield f"quality/{stage}/{key}", y, round(100 * x)
