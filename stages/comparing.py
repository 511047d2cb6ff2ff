"""The command `compare`: finds the reports, and the pictures behind them where they are at hand."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from data.images import read_image
from stages.commands import Request, Session, open_session
from stages.quality.compare import (
    Painter,
    as_json,
    as_page,
    as_text,
    load_report,
    pair_reports,
    worse_by,
)
from stages.quality.gallery import MASKS, Panel, error_panel, mask_panel, photograph, stage_mask
from stages.quality.measure import scored_images
from stages.quality.measured import Values
from stages.quality.report import report_paths
from stages.workspace import Workspace
from wsss.artifacts import Artifact
from wsss.errors import UserError
from wsss.files import write_text
from wsss.output_folder import OutputFolder


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
