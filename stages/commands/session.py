"""A session: what a command was told, resolved into configuration, checked data and planned stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Dataset, open_dataset
from stages import Planned, execute, plan, with_precision
from stages.commands.report import Subject, bring_up_to_date, flat
from stages.commands.report.gallery import write_overview
from stages.commands.report.measure import Measures, measure
from stages.workspace import Run, Workspace
from wsss.config import Config, TrainConfig, load_config, to_tree
from wsss.errors import UserError
from wsss.runtime import distributed
from wsss.runtime.pool import require_descriptors_of_run


@dataclass(frozen=True)
class Request:
    """What every command with a configuration is told.

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
    """A request resolved.

    Attributes:
        config: the configuration.
        dataset: the data, checked.
        planned: the stages that the configuration needs, by name.
        workspace: where results are kept.
        run: the named run in it.
        preset: the file that the configuration started from: its name, and its keys and values.
    """

    config: Config
    dataset: Dataset
    planned: dict[str, Planned]
    workspace: Workspace
    run: Run
    preset: dict[str, Any]

    def measures(self) -> Measures:
        """Metrics of every cached stage that has any, by name; computed where they are not kept."""
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
    run = workspace.run(request.name or (request.config.stem if request.config else "default"))
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
    asked, config = config, with_precision(config)
    planned = {item.name: item for item in plan(config, dataset, workspace.root)}
    if request.config is None:
        preset = run.record().get("preset", {})
    else:
        file = flat(to_tree(load_config(request.config)))
        if asked.run.precision == "auto":  # decided, not changed
            file["run.precision"] = config.run.precision
        preset = {"name": request.config.name, "config": file}
    return Session(config, dataset, planned, workspace, run, preset)


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


def compute_missing(session: Session) -> list[str]:
    """Compute every stage that is not cached; after each, bring the report up to date. Returns what was computed."""
    if not distributed.leads():
        return [item.name for item in session.planned.values() if compute_stage(session, item)]
    if not all(item.cached for item in session.planned.values()):
        require_descriptors_of_run(session.config.run)
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


def compute_stage(session: Session, item: Planned, *, force: bool = False) -> bool:
    """Make sure that one stage's artifact is there; returns whether it was computed now."""
    return execute(
        item,
        session.planned,
        session.config,
        session.dataset,
        force=force,
        log=session.run.log,
        say=lambda text: print(text, flush=True),
    )


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
