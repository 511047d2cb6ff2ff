"""The commands run, stage, status, report, prune and config."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages import Planned, differences
from stages.commands.report import (
    read_summary,
    refresh_report,
    report_paths,
    require_tensorboard,
    write_events,
)
from stages.commands.report.gallery import refresh_overview
from stages.commands.report.measure import headlines
from stages.commands.report.values import RESULTS, result
from stages.commands.session import (
    Request,
    Session,
    check_networks,
    compute_stage,
    introduce,
    open_session,
)
from stages.commands.terminal import aligned, human_bytes, human_seconds
from stages.workspace import Workspace, computed, prune
from wsss.config import load_config, to_toml
from wsss.errors import UserError
from wsss.runtime import distributed
from wsss.store.artifacts import verify

SAID = 3
"""Pieces of advice in the last lines; the report has all."""


def run_all(request: Request, *, tensorboard: bool = False) -> None:
    """Compute every stage that is not cached; after each, bring the report up to date; print the table."""
    if tensorboard:
        require_tensorboard()
    session = open_session(request, writable=distributed.leads())
    introduce(session)
    check_networks(session)
    _finish(session, compute_missing(session), tensorboard=tensorboard)


def compute_missing(session: Session) -> list[str]:
    """Compute every stage that is not cached; after each, bring the report up to date. Returns what was computed."""
    if not distributed.leads():
        return [item.name for item in session.planned.values() if compute_stage(session, item)]
    session.run.announce(session.planned)
    fresh = []
    unsaid = False  # whether the report may lack a cached stage: it is told before hours go by
    for item in session.planned.values():
        if unsaid and not item.cached:
            refresh_report(session)
        if computed_now := compute_stage(session, item):
            fresh.append(item.name)
            refresh_report(session)
        else:
            print(f"{item.name}: cached")
        unsaid = not computed_now
    return fresh


def run_stage(request: Request, stage: str, *, force: bool, tensorboard: bool = False) -> None:
    """Compute exactly one stage, with its inputs from the cache, and bring the report up to date."""
    if tensorboard:
        require_tensorboard()
    session = open_session(request, writable=distributed.leads())
    if stage not in session.planned:
        raise UserError(
            f"stage {stage} is not part of this configuration (segment.supervision = "
            f"'{session.config.segment.supervision}'); its stages: {', '.join(session.planned)}"
        )
    introduce(session)
    if distributed.leads():
        session.run.announce(session.planned)
    fresh = [stage] if compute_stage(session, session.planned[stage], force=force) else []
    if not fresh:
        print(f"{stage}: cached; --force computes it again")
    _finish(session, fresh, tensorboard=tensorboard)


def show_status(request: Request, *, check: bool = False) -> None:
    """Print what is cached and what would run, and why; with ``check`` hold every artifact against its checksum.

    Raises:
        DamagedArtifactError: with ``check``: an artifact is not the file that was written.
    """
    session = open_session(request, writable=False)
    before = session.run.record().get("stages", {})
    for item in session.planned.values():
        state = "cached" if item.cached else "would run"
        print(f"{item.name:9} {item.stamp.fingerprint}  {state:9}  {_reason(item, before.get(item.name))}")
    if check:
        _verify(session)


def run_report(request: Request, *, tensorboard: bool = False) -> None:
    """Measure what a run has, bring its report up to date and say where it is."""
    if tensorboard:
        require_tensorboard()
    workspace = Workspace(request.workspace.expanduser().resolve())
    run = workspace.run(request.name or "default")
    if not run.record().get("stages"):
        raise UserError(
            f"run {run.folder.name}: nothing is computed yet in {workspace.root}; runs there: {workspace.known}"
        )
    session = open_session(request)
    _verify(session)
    measured = refresh_report(session)
    print(table(session, measured, []))
    if not measured:
        raise UserError("nothing to report on: none of the stages cams, refine and segment is cached")
    for stage, found in headlines(measured).items():
        if found.get("review.correlation") is not None:
            print(
                f"order of review, {RESULTS[stage]}: "
                f"Spearman {found['review.correlation']:.2f} with the images' own mIoU; "
                f"its first tenth has {100 * found['review.worst_tenth']:.0f} % of the wrong pixels"
            )
    for path in report_paths(session.run):
        print(path)
    if tensorboard:
        print(f"events:   {write_events(session, measured)}")


def run_prune(workspace: Path, *, dry_run: bool) -> None:
    """Remove what no run names and say what went."""
    root = workspace.expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"workspace {root}: no such folder")
    removed = prune(Workspace(root), dry_run=dry_run)
    for path, size in removed:
        print(f"{'would remove' if dry_run else 'removed'} {path.relative_to(root)}  {human_bytes(size)}")
    print(f"{len(removed)} files, {human_bytes(sum(size for _, size in removed))}")


def show_config(request: Request) -> None:
    """Print the resolved configuration with every key explained, as TOML."""
    source = request.config
    if source is None and request.name:
        file = Workspace(request.workspace).run(request.name).config_file
        source = file if file.exists() else None
    print(to_toml(load_config(source, request.overrides), comments=True))


def table(session: Session, measured: Mapping[str, Path], fresh: Sequence[str]) -> str:
    """One line per stage: what was done, what came out, what it cost."""
    rows, figures = [("stage", "state", "result", "time", "cache")], headlines(measured)
    for name, item in session.planned.items():
        if item.cached:
            state = "computed" if name in fresh else "cached"
            seconds = computed(item).get("seconds")
            time = "-" if seconds is None else human_seconds(seconds)
            said = result(name, figures.get(name), session.config.refine)
            rows.append((name, state, said, time, human_bytes(item.path.stat().st_size)))
        else:
            rows.append((name, "missing", "", "-", "-"))
    return aligned(rows)


def _finish(session: Session, fresh: Sequence[str], *, tensorboard: bool) -> None:
    if not distributed.leads():
        return
    measured = refresh_report(session)
    refresh_overview(session, fresh)
    print(f"\n{table(session, measured, fresh)}")
    print(f"\npictures: {session.run.overview}")
    if measured:
        summary = read_summary(session.run)
        print(f"report:   {report_paths(session.run)[0]}\n\n{summary.answer}")
        print(
            'Look at the images under "Review first" in the report; review.csv beside it has the whole order.'
        )
        if summary.advice:
            print("\n- ".join(["What stands out, and what to try:", *summary.advice[:SAID]]))
    if tensorboard:
        print(f"events:   {write_events(session, measured)}")


def _verify(session: Session) -> None:
    for item in session.planned.values():
        if item.cached:
            verify(item.path, item.stamp.fingerprint)


def _reason(item: Planned, before: dict[str, Any] | None) -> str:
    if before is None:
        return "" if item.cached else "this run has never computed it"
    changed = differences(before["material"], item.stamp.material)
    if changed:
        return "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
    return "" if item.cached else "its file is gone"
