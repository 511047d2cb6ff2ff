"""The pipeline on one screen: the stages, what each may see, and how one is found or computed.

    classify -> cams -> refine -> segment

An artifact is named by what it depends on (see `wsss.store.artifacts.Stamp`), so a stage is up to date exactly when
its file exists. The three weak stages are handed a view of the data without masks. Stage NAME is the function `compute`
of ``stages/NAME.py``, the section [NAME] of the configuration, and the folder ``artifacts/NAME``.
"""

import importlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from data import Dataset
from wsss.config import Config, TrainConfig, to_tree
from wsss.errors import UserError
from wsss.model.weights import weights_identity
from wsss.runtime import distributed
from wsss.runtime.device import resolve_precision
from wsss.store.artifacts import (
    DamagedArtifactError,
    Stamp,
    checkpoint_of,
    parts_of,
    record_of,
    remove_leftovers,
    tidy,
    verify,
)
from wsss.store.files import exclusive, is_kept, set_aside, write_json


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage is handed.

    Attributes:
        config: the whole resolved configuration.
        data: the samples the stage may see; the data set's masks are there under full supervision alone.
        inputs: artifact paths by stage name.
        output: final path of the artifact that the stage writes.
        stamp: of that artifact.
        log: writes an event to the run's log.
    """

    config: Config
    data: Dataset
    inputs: Mapping[str, Path]
    output: Path
    stamp: Stamp
    log: Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: see above.
        version: raised whenever the same inputs give another result than before.
        network: whether it computes with a network, so that ``run.precision`` changes its result.
        inputs: the stages whose artifacts it reads.
        view: the part of the data it may see.
    """

    name: str
    version: int
    network: bool
    inputs: Callable[[Config], tuple[str, ...]]
    view: Callable[[Config, Dataset], Dataset]


def _weak_training(config: Config, dataset: Dataset) -> Dataset:
    """Training images and tags, no masks."""
    return dataset.weak().split(config.data.train_split)


def _refine_view(config: Config, dataset: Dataset) -> Dataset:
    """Training images and tags, what somebody has corrected, and imported masks: none of the data set's own."""
    return dataset.weak(corrections=True, imported=True).split(config.data.train_split)


def _segment_view(config: Config, dataset: Dataset) -> Dataset:
    """Training and validation images; under full supervision with the masks of the training images alone."""
    weak = dataset.weak(corrections=True)
    if config.segment.supervision == "pseudo":
        return weak
    return dataset.split(config.data.train_split).joined(weak.split(config.data.val_split))


def _refine_inputs(config: Config) -> tuple[str, ...]:
    return () if config.refine.method == "import" else ("cams",)


def _segment_inputs(config: Config) -> tuple[str, ...]:
    return ("refine",) if config.segment.supervision == "pseudo" else ()


STAGES: tuple[Stage, ...] = (
    Stage("classify", 6, True, lambda _: (), _weak_training),
    Stage("cams", 6, True, lambda _: ("classify",), _weak_training),
    Stage("refine", 2, False, _refine_inputs, _refine_view),
    Stage("segment", 9, True, _segment_inputs, _segment_view),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True)
class Planned:
    """A stage under one configuration: its stamp, and where its artifact is or will be."""

    stage: Stage
    stamp: Stamp
    path: Path

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def cached(self) -> bool:
        """Whether the artifact is there."""
        return self.path.exists()


def with_precision(config: Config) -> Config:
    """The configuration with ``run.precision = "auto"`` decided for its device: what changes bits has a name.

    Raises:
        UserError: the device is not available here.
    """
    return replace(config, run=replace(config.run, precision=resolve_precision(config.run)))


def plan(config: Config, dataset: Dataset, workspace: Path) -> tuple[Planned, ...]:
    """The stages that this configuration needs, in order, each with its artifact's name."""
    config = with_precision(config)
    needed = {STAGES[-1].name}
    for stage in reversed(STAGES):
        needed |= set(stage.inputs(config)) if stage.name in needed else set()
    digests: dict[Callable[[Config, Dataset], Dataset], str] = {}  # three stages have one view
    planned: dict[str, Planned] = {}
    for stage in STAGES:
        if stage.name not in needed:
            continue
        if stage.view not in digests:
            digests[stage.view] = stage.view(config, dataset).digest(masks=True)
        stamp = Stamp(
            stage=stage.name,
            version=stage.version,
            seed=config.seed,
            data=digests[stage.view],
            config=_section(config, stage.name),
            inputs={name: planned[name].stamp.fingerprint for name in stage.inputs(config)},
            precision=config.run.precision if stage.network else "",
            classes=dataset.classes,
            software=software_versions(),
        )
        path = workspace / "artifacts" / stage.name / f"{stamp.fingerprint}.h5"
        planned[stage.name] = Planned(stage, stamp, path)
    return tuple(planned.values())


def execute(
    planned: Planned,
    everything: Mapping[str, Planned],
    config: Config,
    dataset: Dataset,
    *,
    force: bool = False,
    log: Callable[[dict[str, Any]], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> bool:
    """Make sure that a stage's artifact is there.

    Args:
        planned: the stage.
        everything: the whole plan by name, for its inputs.
        config: the configuration.
        dataset: the data with its masks; the stage is handed its view of it.
        force: compute even if the artifact is there.
        log: takes events for the run's log.
        say: takes sentences for the user.

    Returns:
        Whether it was computed now.

    Raises:
        UserError: an input is missing.
    """

    def waiting(lock: str) -> None:
        say(f"{planned.name}: another process computes this; waiting for it (it holds {lock})")

    inputs = {name: everything[name] for name in planned.stage.inputs(config)}
    context = Context(
        config=config,
        data=planned.stage.view(config, dataset),
        inputs={name: item.path for name, item in inputs.items()},
        output=planned.path,
        stamp=planned.stamp,
        log=log,
    )
    if not distributed.leads():  # does its part of the work, if the leader says that there is work
        if needed := distributed.agreed(False):
            _compute(replace(context, log=lambda _: None))
        return needed
    _set_aside_damaged([planned], waiting, say)
    if planned.cached and not force:
        tidy(planned.path)
        return distributed.agreed(False)
    _set_aside_damaged(inputs.values(), waiting, say)
    if missing := [name for name, item in inputs.items() if not item.cached]:
        raise UserError(
            f"stage {planned.name} needs the result of {missing[0]}, which is not cached for this configuration; "
            f"`run` computes everything that is missing, `stage {missing[0]}` that stage alone"
        )
    with exclusive(planned.path, waiting):
        if planned.cached and not force:
            return distributed.agreed(False)
        remove_leftovers(planned.path)
        for path in (*sorted(parts_of(planned.path).glob("*.h5")), checkpoint_of(planned.path)):
            is_kept(path, "that part is computed again", lambda text: say(f"{planned.name}: {text}"))
        distributed.agreed(True)
        started = time.monotonic()
        log({"stage": planned.name, "event": "start", "fingerprint": planned.stamp.fingerprint})
        _compute(context)
        record = {
            "stage": planned.name,
            "fingerprint": planned.stamp.fingerprint,
            "seconds": round(time.monotonic() - started, 3),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "software": dict(planned.stamp.software),
            "material": planned.stamp.material,
        }
        write_json(record_of(planned.path), record)
        checkpoint_of(planned.path).unlink(missing_ok=True)
        log({"stage": planned.name, "event": "done", "fingerprint": planned.stamp.fingerprint})
    return True


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two stamps' materials differ, as ``key: old -> new``."""
    changed = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return changed


@cache
def software_versions() -> dict[str, str]:
    """Versions of what results depend on."""
    names = ("torch", "torchvision", "timm", "numpy", "h5py", "pydensecrf2", "pillow")
    return {name: importlib.metadata.version(name) for name in names}


def _section(config: Config, name: str) -> dict[str, Any]:
    """A stage's configuration as it enters its fingerprint: weight files by content, not by path."""
    section = getattr(config, name)
    tree = to_tree(section)
    if name == "refine":
        del tree["masks"]  # by content, as the data of the stage
    if isinstance(section, TrainConfig):
        tree["weights"] = weights_identity(section.backbone, section.weights)
    return tree


def _compute(context: Context) -> None:
    # Found by its name: the command line must not import torch, and the stages import this file.
    importlib.import_module(f"stages.{context.stamp.stage}").compute(context)


def _set_aside_damaged(
    items: Iterable[Planned], waiting: Callable[[str], None], say: Callable[[str], None]
) -> None:
    """Rename what stands under an artifact's name and is none, so that it is computed again."""
    for item in items:
        if _damage(item) is not None:
            with exclusive(item.path, waiting):  # another process may be computing it again: look once more
                if (error := _damage(item)) is not None:
                    aside = set_aside(item.path).name
                    say(f"{item.name}: {error}; set aside as {aside}, will be computed again")


def _damage(item: Planned) -> DamagedArtifactError | None:
    """What is wrong with an artifact; None where nothing is, or where there is none."""
    try:
        if item.cached:
            verify(item.path, item.stamp.fingerprint)
    except DamagedArtifactError as error:
        return error
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:12] + "..."
