"""`compare`: two or more reports side by side: on the terminal, as JSON and as one HTML page.

The command `compare`: finds the reports, and the pictures behind them where they are at hand.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.images import read_image
from stages.commands.compare.pairing import StagePair, config_differences, pair_stage
from stages.commands.report.gallery import (
    MASKS,
    Exhibit,
    Panel,
    error_panel,
    mask_panel,
    photograph,
    stage_mask,
)
from stages.commands.report.measure import scored_images
from stages.commands.report.page import percent, render, signed
from stages.commands.report.report import SCHEMA, report_paths
from stages.commands.report.values import Values
from stages.commands.report.wording import INDICATORS, STAGE_TITLES
from stages.commands.session import Request, Session, open_session
from stages.workspace import Workspace
from wsss.errors import UserError
from wsss.store.artifacts import Artifact
from wsss.store.files import OutputFolder, is_sealed, parse_json, write_text

SHOWN = 3
"""Images shown of those that gained and of those that lost most."""
ON_TERMINAL = ("miou", "boundary_iou", "failure1.recall_tiny", "failure1.recall_thin", "failure2.mistaken")

Painter = Callable[[str, str, Values, Values], tuple[tuple[int, ...], tuple[Panel, ...]]]
"""(stage, image id, report A, report B) -> labels, pictures; UserError where photographs or masks are not at hand."""


@dataclass(frozen=True)
class Pair:
    """The first run against another.

    Attributes:
        a: name of the first.
        b: name of the other.
        stages: what both have.
        notes: what is not comparable at all.
    """

    a: str
    b: str
    stages: tuple[StagePair, ...]
    notes: tuple[str, ...]


def load_report(path: Path) -> Values:
    """A report.json.

    Raises:
        UserError: not there, not a report, or of another schema.
    """
    try:
        values: Values = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `report RUN` writes it") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); `report RUN` writes it anew") from None
    if not isinstance(values, dict) or not {"schema", "run", "labels", "config"} <= values.keys():
        raise UserError(f"{path}: not a report of this program; expected the report.json of a run")
    if values["schema"] != SCHEMA:
        raise UserError(f"{path}: schema {values['schema']}, expected {SCHEMA}; `report RUN` writes it anew")
    if "sha256" in values and not is_sealed(path):
        raise UserError(f"{path}: it has changed since it was written (sha256); `report RUN` writes it anew")
    for stage in (stage for stage in STAGE_TITLES if f"{stage}.split" in values):
        _check_columns(values, stage, path)
    return values


def _check_columns(values: Values, stage: str, path: Path) -> None:
    """Refuse a stage whose columns are missing or of different lengths."""
    names = [
        f"{stage}.{name}" for name in ("truth", "per_image.id", "per_image.labels", "per_image.failures")
    ]
    names += [key for key in values if key.startswith(f"{stage}.per_image.indicator.")]
    columns = [values.get(name) for name in names]
    if not all(isinstance(column, list) for column in columns) or len({len(c or []) for c in columns}) > 1:
        raise UserError(
            f"{path}: the columns of {stage} are damaged; expected lists of one length in {', '.join(names[:4])}; "
            "`report RUN` writes it anew"
        )


def pair_reports(reports: Sequence[Values], names: Sequence[str], *, resamples: int) -> list[Pair]:
    """The first report against each of the others."""
    first = reports[0]
    pairs = []
    for other, name in zip(reports[1:], names[1:], strict=True):
        both = [stage for stage in STAGE_TITLES if f"{stage}.split" in first and f"{stage}.split" in other]
        stages = tuple(pair_stage(stage, first, other, resamples=resamples) for stage in both)
        pairs.append(Pair(names[0], name, stages, tuple(_missing(first, other, names[0], name))))
    return pairs


def worse_by(pairs: Sequence[Pair], points: float) -> list[str]:
    """Sentences for every stage whose mIoU fell by more than ``points`` (in points of mIoU).

    Raises:
        UserError: nothing was comparable, so that there is nothing to judge by.
    """
    scored = [(pair, stage, stage.scores[0]) for pair in pairs for stage in pair.stages if stage.scores]
    if not scored:
        raise UserError(
            "--fail-if-worse: the runs have no comparable scores (no common images with the same masks)"
        )
    return [
        f"{pair.b}: {STAGE_TITLES[stage.stage]}: mIoU {signed(line.difference)} against {pair.a}"
        for pair, stage, line in scored
        if line.difference is not None and 100 * line.difference < -points
    ]


def as_json(pairs: Sequence[Pair], reports: Sequence[Values]) -> dict[str, Any]:
    """The comparison as plain values."""
    differences = [{"key": key, "values": values} for key, values in config_differences(reports)]
    return {"schema": SCHEMA, "config": differences, "pairs": [asdict(pair) for pair in pairs]}


def as_text(pairs: Sequence[Pair], reports: Sequence[Values], names: Sequence[str]) -> str:
    """The comparison for a terminal."""
    lines = []
    for key, values in config_differences(reports):
        lines.append(
            f"{key}: " + " | ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        )
    for pair in pairs:
        lines += ["", f"{pair.b} against {pair.a}", *(f"  note: {note}" for note in pair.notes)]
        for stage in pair.stages:
            lines += _stage_text(stage, pair)
    lines += ["", "* the 95 % interval (paired bootstrap over images) excludes zero"]
    return "\n".join(lines)


def as_page(pairs: Sequence[Pair], reports: Sequence[Values], names: Sequence[str], paint: Painter) -> str:
    """The comparison as one HTML page."""
    shown = {}
    for other, pair in zip(reports[1:], pairs, strict=True):
        for stage in pair.stages:
            shown[pair.b, stage.stage] = _exhibits(stage, reports[0], other, paint)
    return render(
        "compare.html",
        reports=reports,
        names=names,
        pairs=pairs,
        differences=config_differences(reports),
        titles=STAGE_TITLES,
        indicators=INDICATORS,
        shown=shown,
        versions=_version_differences(reports, names),
    )


def _missing(first: Values, other: Values, a: str, b: str) -> list[str]:
    notes = []
    for stage, title in STAGE_TITLES.items():
        has = [f"{stage}.split" in report for report in (first, other)]
        if has[0] != has[1]:
            notes.append(f"{title}: only {a if has[0] else b} has it.")
    data = [
        {stage: report.get(f"{stage}.data") for stage in ("classify", "segment")} for report in (first, other)
    ]
    if any(data[0][stage] != data[1][stage] for stage in data[0] if data[0][stage] and data[1][stage]):
        notes.append(
            "The two were trained on different data (photographs, tags or splits, or masks under full supervision)."
        )
    return notes


def _stage_text(stage: StagePair, pair: Pair) -> list[str]:
    lines = [f"  {STAGE_TITLES[stage.stage]}, {len(stage.images)} images"]
    lines += [f"    note: {note}" for note in stage.notes]
    wanted = [line for line in (*stage.scores, *stage.failures) if line.key in ON_TERMINAL]
    if wanted:
        lines.append(f"    {'':24} {pair.a[:12]:>12} {pair.b[:12]:>12} {'difference':>11}   95 % interval")
    for line in wanted:
        interval = f"[{signed(line.low)}, {signed(line.high)}]" if line.low is not None else ""
        lines.append(
            f"    {line.title:24} {percent(line.a):>12} {percent(line.b):>12} {signed(line.difference):>11}   "
            f"{interval}{' *' if line.sure else ''}"
        )
    return lines


def _exhibits(stage: StagePair, a: Values, b: Values, paint: Painter) -> tuple[list[Exhibit], str]:
    """The images that lost and gained most, and why there are no pictures if there are none."""
    lost = [row for row in stage.changes[:SHOWN] if row[2] < row[1]]
    gained = [row for row in reversed(stage.changes[-SHOWN:]) if row[2] > row[1]]
    exhibits = []
    try:
        for group, rows in (("gained", gained), ("lost", lost)):
            for image_id, before, after in rows:
                caption = f"mIoU {percent(before)} to {percent(after)}"
                labels, panels = paint(stage.stage, image_id, a, b)
                exhibits.append(Exhibit(group, image_id, caption, labels, panels))
    except UserError as error:
        return [], str(error)
    return exhibits, ""


def _version_differences(reports: Sequence[Values], names: Sequence[str]) -> list[str]:
    software: list[Mapping[str, str]] = [report.get("software", {}) for report in reports]
    packages = dict.fromkeys(package for versions in software for package in versions)
    return [
        f"{package}: "
        + ", ".join(f"{name} {versions.get(package)}" for name, versions in zip(names, software, strict=True))
        for package in packages
        if len({versions.get(package) for versions in software}) > 1
    ]


def run_compare(
    runs: Sequence[str],
    workspace: Path,
    *,
    out: Path | None = None,
    print_json: bool = False,
    fail_if_worse: float | None = None,
    resamples: int,
) -> bool:
    """Compare the first run with the others: print, write the page, and judge.

    Args:
        runs: names of runs in the workspace, or paths of report.json files.
        workspace: folder of the runs.
        out: the page; None: ``compare.html`` in the folder of the last run.
        print_json: print JSON instead of the tables.
        fail_if_worse: points of mIoU that a run may lose against the first.
        resamples: of the bootstrap.

    Returns:
        False where a run is worse than allowed.

    Raises:
        UserError: fewer than two runs, or a report is missing or damaged.
    """
    if len(runs) < 2:
        raise UserError(f"compare: expected two runs or more, got {len(runs)}")
    root = Workspace(workspace.expanduser().resolve())
    paths = [_report_path(run, root) for run in runs]
    reports = [load_report(path) for path in paths]
    names = _names(reports)
    pairs = pair_reports(reports, names, resamples=resamples)
    page = out or _usual_page(paths[-1].parent)
    write_text(page, as_page(pairs, reports, names, _painter(paths, reports, names)))
    if print_json:
        print(json.dumps(as_json(pairs, reports), ensure_ascii=False, allow_nan=False))
    else:
        print(as_text(pairs, reports, names))
        print(f"page: {page}")
    if fail_if_worse is None:
        return True
    worse = worse_by(pairs, fail_if_worse)
    for sentence in worse:
        # Not on standard output: --json has that to itself.
        print(f"worse by more than {fail_if_worse:g} points: {sentence}", file=sys.stderr)
    return not worse


def _usual_page(folder: Path) -> Path:
    """In the folder of a run, which must not be a link that leads out of the workspace."""
    return OutputFolder(folder.parent).place(f"{folder.name}/compare.html")


def _report_path(run: str, root: Workspace) -> Path:
    if run.endswith(".json") or "/" in run:
        return Path(run).expanduser().resolve()
    path = report_paths(root.run(run))[1]
    if not path.exists():
        known = ", ".join(item.folder.name for item in root.runs()) or "none"
        raise UserError(f"run {run}: no report at {path}; `report {run}` writes it. Runs there: {known}")
    return path


def _names(reports: Sequence[Values]) -> list[str]:
    """What the runs are called on the page: their names, made different where they are not."""
    names: list[str] = []
    for report in reports:
        name, count = str(report["run"]), 1
        while name in names:
            count += 1
            name = f"{report['run']} ({count})"
        names.append(name)
    return names


def _painter(paths: Sequence[Path], reports: Sequence[Values], names: Sequence[str]) -> Painter:
    """Paints from the workspaces in which the reports lie; sessions are opened once, when first needed."""
    sessions: dict[int, Session] = {}

    def session_of(report: Values) -> tuple[Session, str]:
        position = next(index for index, known in enumerate(reports) if known is report)
        if position not in sessions:
            folder = paths[position].parent
            if not (folder / "run.json").exists():
                raise UserError(f"{folder} is no run's folder, so its masks are not at hand")
            request = Request(None, [], folder.name, folder.parent)
            sessions[position] = open_session(request)
        return sessions[position], names[position]

    def paint(stage: str, image_id: str, a: Values, b: Values) -> tuple[tuple[int, ...], tuple[Panel, ...]]:
        return _panels(stage, image_id, [(*session_of(report), report) for report in (a, b)])

    return paint


def _panels(
    stage: str, image_id: str, sides: Sequence[tuple[Session, str, Values]]
) -> tuple[tuple[int, ...], tuple[Panel, ...]]:
    first = sides[0][0]
    samples = {sample.id: sample for sample in scored_images(stage, first.config, first.dataset).samples}
    if image_id not in samples:
        raise UserError(f"the photograph {image_id} is no longer in the data set")
    sample, classes = samples[image_id], first.dataset.classes
    image = read_image(sample.image)
    panels = [photograph(sample, image, classes)]
    errors = []
    truth = sample.mask.read() if sample.mask else None
    for session, name, report in sides:
        planned = session.planned.get(stage)
        if (
            planned is None
            or not planned.cached
            or planned.stamp.fingerprint != report[f"{stage}.fingerprint"]
        ):
            raise UserError(f"the masks of {name} that its report describes are not in its workspace")
        artifact = Artifact(planned.path)
        mask = stage_mask(stage, artifact, sample, report.get(f"{stage}.threshold", 0.0))
        artifact.close()
        panels.append(mask_panel(f"{MASKS[stage]}, {name}", image, mask, session.dataset.classes))
        if truth is not None:
            errors.append(error_panel(f"errors, {name}", image, truth, mask))
    if truth is not None:
        panels.append(mask_panel("truth", image, truth, classes))
    return tuple(tag + 1 for tag in sample.tags), (*panels, *errors)
