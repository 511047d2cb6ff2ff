"""What the command line does: run, stage, status, prune, config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Dataset, open_dataset
from stages import Planned, differences, execute, plan, with_precision
from stages.commands.report import Subject, bring_up_to_date, flat, report_paths
from stages.commands.report.gallery import write_overview
from stages.commands.report.measure import Measures, measure
from stages.commands.report.values import result
from stages.commands.terminal import aligned, human_bytes, human_seconds
from stages.workspace import Run, Workspace, computed, prune
from wsss.config import Config, TrainConfig, load_config, to_toml, to_tree
from wsss.errors import UserError
from wsss.runtime import distributed
from wsss.runtime.pool import require_descriptors_of_run
from wsss.store.artifacts import verify


@dataclass(frozen=True)
class Request:
    """What every command is told.

    Attributes:
        config: TOML file, or None: the run's own configuration if it has one.
        overrides: ``section.key=value`` texts.
        name: of the run, or None: the configuration file's name.
        workspace: folder.
    """

    config: Path | None
    overrides: Sequence[str]
    name: str | None
    workspace: Path


@dataclass(frozen=True)
class Session:
    """A request resolved: configuration, checked data, planned stages."""

    config: Config
    dataset: Dataset
    planned: dict[str, Planned]
    workspace: Workspace
    run: Run
    preset: dict[str, Any]

    def measures(self) -> Measures:
        """Measures of every cached stage that has any, by name; computed where they are not kept."""
        found = {
            name: measure(item, self.planned, self.config, self.dataset, self.workspace.root)
            for name, item in self.planned.items()
            if item.cached
        }
        return Measures({name: measured for name, measured in found.items() if measured is not None})

    def subject(self) -> Subject:
        """What the run's report is about."""
        return Subject(
            run=self.run,
            config=self.config,
            preset=self.preset.get("config", {}),
            preset_name=self.preset.get("name", ""),
            dataset=self.dataset,
            planned=self.planned,
            measures=self.measures(),
        )


def open_session(request: Request, *, writable: bool = True) -> Session:
    """Resolve the configuration, check all input, plan the stages. Raises UserError before anything is computed."""
    workspace = Workspace(request.workspace.expanduser().resolve())
    name = request.name or (request.config.stem if request.config else "default")
    run = workspace.run(name)
    source = request.config or (run.config_file if run.config_file.exists() else None)
    config = load_config(source, request.overrides)
    if not config.data.root:
        known = ", ".join(item.folder.name for item in workspace.runs())
        raise UserError(
            f"data.root is not set: give --config FILE.toml, --set data.root=DIR, or the --name of a run in "
            f"{workspace.root} ({known or 'there is none yet'})"
        )
    if writable:
        workspace.make()
        run.repair()
    dataset = open_dataset(
        config.data,
        cache=workspace.file_index(config.data.root),
        writable=writable,
        progress=distributed.leads(),
    )
    config = with_precision(config)
    planned = {item.name: item for item in plan(config, dataset, workspace.root)}
    return Session(config, dataset, planned, workspace, run, _preset(request, run))


def run_all(request: Request, *, tensorboard: bool = False) -> None:
    """Compute every stage that is not cached; after each, bring the report up to date; print the table."""
    _require(tensorboard)
    session = open_session(request, writable=distributed.leads())
    introduce(session)
    check_networks(session)
    _finish(session, compute_missing(session), tensorboard=tensorboard)


def compute_missing(session: Session) -> list[str]:
    """Compute every stage that is not cached; after each, bring the report up to date. Returns what was computed."""
    if not distributed.leads():
        return [item.name for item in session.planned.values() if _execute(session, item, force=False)]
    if not all(item.cached for item in session.planned.values()):
        require_descriptors_of_run(session.config.run)
    session.run.announce(session.planned)
    fresh = []
    unsaid = False  # whether the report may lack a cached stage: it is told before hours go by
    for item in session.planned.values():
        if unsaid and not item.cached:
            refresh_report(session)
        if computed_now := _execute(session, item, force=False):
            fresh.append(item.name)
            refresh_report(session)
        else:
            print(f"{item.name}: cached")
        unsaid = not computed_now
    return fresh


def run_stage(request: Request, stage: str, *, force: bool, tensorboard: bool = False) -> None:
    """Compute exactly one stage, with its inputs from the cache, and bring the report up to date."""
    _require(tensorboard)
    session = open_session(request, writable=distributed.leads())
    if stage not in session.planned:
        raise UserError(
            f"stage {stage} is not part of this configuration (segment.supervision = "
            f"'{session.config.segment.supervision}'); its stages: {', '.join(session.planned)}"
        )
    introduce(session)
    if distributed.leads():
        session.run.announce(session.planned)
    fresh = [stage] if _execute(session, session.planned[stage], force=force) else []
    if not fresh:
        print(f"{stage}: cached; --force computes it anew")
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


def run_prune(workspace: Path, *, dry_run: bool) -> None:
    """Remove what no run names and say what went."""
    root = workspace.expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"workspace {root}: no such folder")
    removed = prune(Workspace(root), dry_run=dry_run)
    for path, size in removed:
        print(f"{'would remove' if dry_run else 'removed'} {path.relative_to(root)}  {human_bytes(size)}")
    print(f"{len(removed)} files, {human_bytes(sum(size for _, size in removed))}")


def run_report(request: Request, *, tensorboard: bool = False) -> None:
    """Measure what a run has, bring its report up to date and say where it is."""
    _require(tensorboard)
    workspace = Workspace(request.workspace.expanduser().resolve())
    run = workspace.run(request.name or "default")
    if not run.record().get("stages"):
        known = ", ".join(item.folder.name for item in workspace.runs()) or "none"
        raise UserError(
            f"run {run.folder.name}: nothing is computed yet in {workspace.root}; runs there: {known}"
        )
    session = open_session(request)
    _verify(session)
    subject = refresh_report(session)
    print(table(session, subject.measures.headlines(), []))
    if not subject.measures:
        raise UserError("nothing to report on: none of the stages cams, refine and segment is cached")
    for path in report_paths(session.run):
        print(path)
    _events(subject, tensorboard)


def show_config(request: Request) -> None:
    """Print the resolved configuration with every key explained, as TOML."""
    source = request.config
    if source is None and request.name:
        file = Workspace(request.workspace).run(request.name).config_file
        source = file if file.exists() else None
    print(to_toml(load_config(source, request.overrides), comments=True))


def table(session: Session, measures: Mapping[str, dict[str, Any]], fresh: Sequence[str]) -> str:
    """One line per stage: what was done, what came out, what it cost."""
    rows = [("stage", "state", "result", "time", "cache")]
    for name, item in session.planned.items():
        state = "computed" if name in fresh else "cached" if item.cached else "missing"
        seconds = computed(item).get("seconds") if item.cached else None
        rows.append(
            (
                name,
                state,
                result(name, measures.get(name), session.config.refine) if item.cached else "",
                "-" if seconds is None else human_seconds(seconds),
                human_bytes(item.path.stat().st_size) if item.cached else "-",
            )
        )
    return aligned(rows)


def introduce(session: Session) -> None:
    """Say what the data is, with its notes."""
    data = session.config.data
    train, val = (len(session.dataset.split(name)) for name in (data.train_split, data.val_split))
    print(f"data: {train} training and {val} validation images, {len(session.dataset.classes)} classes")
    for note in session.dataset.notes:
        print(f"note: {note}")


def check_networks(session: Session) -> None:
    """Refuse what a later stage could not build before an earlier one computes for hours."""
    for name, item in session.planned.items():
        section = getattr(session.config, name)
        if isinstance(section, TrainConfig) and not item.cached:
            from stages.training import check_training

            check_training(section, name, session.config.run)
        if name == "cams" and not item.cached:
            from stages.training import check_cam_exits

            check_cam_exits(session.config.cams, session.config.classify)


def _execute(session: Session, item: Planned, *, force: bool) -> bool:
    return execute(
        item,
        session.planned,
        session.config,
        session.dataset,
        force=force,
        log=session.run.log,
        say=lambda text: print(text, flush=True),
    )


def _verify(session: Session) -> None:
    for item in session.planned.values():
        if item.cached:
            verify(item.path, item.stamp.fingerprint)


def _preset(request: Request, run: Run) -> dict[str, Any]:
    """The file that the configuration started from: this request's, or what the run has recorded."""
    if request.config is None:
        recorded: dict[str, Any] = run.record().get("preset", {})
        return recorded
    return {
        "name": request.config.name,
        "config": flat(to_tree(with_precision(load_config(request.config, [])))),
    }


def refresh_report(session: Session) -> Subject:
    """Measure what is new, and bring run.json and the report up to date."""
    subject = session.subject()
    session.run.save(session.config, session.planned, subject.measures.headlines(), session.preset)
    if subject.measures:
        bring_up_to_date(subject)
    return subject


def bring_overview_up_to_date(session: Session, fresh: Sequence[str]) -> None:
    """Draw the run's pictures where something is new or they are not there."""
    if fresh or not session.run.overview.exists():
        train = session.dataset.split(session.config.data.train_split)
        write_overview(session.run.overview, session.planned, train)


def _finish(session: Session, fresh: Sequence[str], *, tensorboard: bool) -> None:
    if not distributed.leads():
        return
    subject = refresh_report(session)
    bring_overview_up_to_date(session, fresh)
    print()
    print(table(session, subject.measures.headlines(), fresh))
    print(f"\npictures: {session.run.overview}")
    if subject.measures:
        print(f"report:   {report_paths(session.run)[0]}")
    _events(subject, tensorboard)


def _require(tensorboard: bool) -> None:
    if tensorboard:
        from stages.commands.report.tensorboard import require_tensorboard

        require_tensorboard()


def _events(subject: Subject, tensorboard: bool) -> None:
    if tensorboard:
        from stages.commands.report.tensorboard import write_events

        print(f"events:   {write_events(subject)}")


def _reason(item: Planned, before: dict[str, Any] | None) -> str:
    if before is None:
        return "" if item.cached else "this run has never computed it"
    changed = differences(before["material"], item.stamp.material)
    if changed:
        return "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
    return "" if item.cached else "its file is gone"
