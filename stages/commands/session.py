"""A session: what a command was told, resolved into configuration, checked data and planned stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Dataset, open_dataset
from stages import Planned, execute, plan, with_precision
from stages.workspace import Run, Workspace
from wsss.config import Config, TrainConfig, load_config, to_tree
from wsss.errors import UserError
from wsss.runtime import distributed


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


def open_session(request: Request, *, writable: bool = True) -> Session:
    """Resolve the configuration, check all input, plan the stages. Raises UserError before anything is computed."""
    workspace = Workspace(request.workspace.expanduser().resolve())
    run = workspace.run(request.name or (request.config.stem if request.config else "default"))
    source = request.config or (run.config_file if run.config_file.exists() else None)
    config = load_config(source, request.overrides)
    if not config.data.root:
        raise UserError(
            f"data.root is not set: give --config FILE.toml, --set data.root=DIR, or the --name of a run in "
            f"{workspace.root} ({workspace.known})"
        )
    if writable:
        workspace.make()
        run.repair()
    weak = config.segment.supervision == "pseudo"
    dataset = open_dataset(
        config.data,
        imported=config.refine.masks if config.refine.method == "import" and weak else "",
        cache=workspace.file_index(config.data.root),
        writable=writable,
        progress=distributed.leads(),
    )
    asked, config = config, with_precision(config)
    planned = {item.name: item for item in plan(config, dataset, workspace.root)}
    if request.config is None:
        preset = run.record().get("preset", {})
    else:
        file = settings(load_config(request.config))
        if asked.run.precision == "auto":  # decided, not changed
            file["run.precision"] = config.run.precision
        preset = {"name": request.config.name, "config": file}
    return Session(config, dataset, planned, workspace, run, preset)


def settings(config: Config) -> dict[str, Any]:
    """``section.key`` to value of all that concerns a single run: [ablate] is about several. As in JSON."""
    found: dict[str, Any] = {}
    for name, section in to_tree(config).items():
        if isinstance(section, Mapping):
            found |= {f"{name}.{key}": value for key, value in section.items() if name != "ablate"}
        else:
            found[name] = section
    return found


def introduce(session: Session) -> None:
    """Say what the data is, with its notes."""
    data = session.config.data
    train, val = (len(session.dataset.split(name)) for name in (data.train_split, data.val_split))
    print(f"data: {train} training and {val} validation images, {len(session.dataset.classes)} classes")
    for note in session.dataset.notes:
        print(f"note: {note}")


def check_networks(session: Session) -> None:
    """Refuse what a later stage could not build before an earlier one computes for hours; say what does nothing."""
    for name, item in session.planned.items():
        section = getattr(session.config, name)
        if isinstance(section, TrainConfig) and not item.cached:
            from stages.training import check_training

            for note in check_training(section, name, session.config.run):
                print(f"note: {note}")
        if name == "cams" and not item.cached:
            from stages.training import check_cam_exits

            check_cam_exits(session.config.cams, session.config.classify)


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
