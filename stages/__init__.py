"""The pipeline on one screen: the stages, what each may see, and how one is found or computed.

    classify -> cams -> refine -> segment

An artifact is named by what it depends on (see `wsss.store.artifacts.Stamp`), so a stage is up to date exactly when
its file exists. The three weak stages are handed a view of the data without masks.
"""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from data import Dataset
from stages.context import Context, checkpoint_of
from stages.integrity import (
    record_path,
    remove_leftovers,
    set_aside_damaged,
    set_aside_unfinished,
    tidy,
    write_record,
)
from wsss.config import Config, TrainConfig, to_tree
from wsss.errors import UserError
from wsss.model.weights import weights_identity
from wsss.runtime import distributed
from wsss.store.artifacts import Stamp
from wsss.store.files import exclusive


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: of the file in `stages`, of the configuration's section, of the artifact's kind.
        version: raised whenever the same inputs give another result than before.
        compute: writes the artifact; imports what it needs when it is called, so that the command line is quick.
        inputs: the stages whose artifacts it reads.
        view: the part of the data it may see.
    """

    name: str
    version: int
    compute: Callable[[Context], None]
    inputs: Callable[[Config], tuple[str, ...]]
    view: Callable[[Config, Dataset], Dataset]


def _classify(context: Context) -> None:
    from stages.classify import compute

    compute(context)


def _cams(context: Context) -> None:
    from stages.cams import compute

    compute(context)


def _refine(context: Context) -> None:
    from stages.refine import compute

    compute(context)


def _segment(context: Context) -> None:
    from stages.segment import compute

    compute(context)


def _weak_training(config: Config, dataset: Dataset) -> Dataset:
    """Training images and tags, no masks."""
    return dataset.weak().split(config.data.train_split)


def _segment_view(config: Config, dataset: Dataset) -> Dataset:
    """Training and validation images; under full supervision with the masks of the training images alone."""
    weak = dataset.weak()
    if config.segment.supervision == "pseudo":
        return weak
    return dataset.split(config.data.train_split).joined(weak.split(config.data.val_split))


def _segment_inputs(config: Config) -> tuple[str, ...]:
    return ("refine",) if config.segment.supervision == "pseudo" else ()


STAGES: tuple[Stage, ...] = (
    Stage("classify", 3, _classify, lambda _: (), _weak_training),
    Stage("cams", 4, _cams, lambda _: ("classify",), _weak_training),
    Stage("refine", 1, _refine, lambda _: ("cams",), _weak_training),
    Stage("segment", 5, _segment, _segment_inputs, _segment_view),
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

    @property
    def record(self) -> Path:
        """How the artifact was computed (seconds, time, software) and its checksum: a JSON file beside it."""
        return record_path(self.path)


def plan(config: Config, dataset: Dataset, workspace: Path) -> tuple[Planned, ...]:
    """The stages that this configuration needs, in order, each with its artifact's name."""
    needed = _needed(config)
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
    inputs = {name: everything[name] for name in planned.stage.inputs(config)}
    if distributed.leads():
        _set_aside_damaged([planned], say)
        if planned.cached and not force:
            tidy(planned.path, checkpoint_of(planned.path))
            return distributed.agreed(False)
        _set_aside_damaged(inputs.values(), say)
    context = Context(
        config=config,
        data=planned.stage.view(config, dataset),
        inputs={name: item.path for name, item in inputs.items()},
        output=planned.path,
        stamp=planned.stamp,
        log=log,
    )
    if not distributed.leads():
        return _help(planned, context)
    _require(inputs, planned.name)
    with exclusive(
        planned.path, lambda: say(f"{planned.name}: another process computes this; waiting for it")
    ):
        if planned.cached and not force:
            return distributed.agreed(False)
        remove_leftovers(planned.path)
        set_aside_unfinished(planned.path, context.checkpoint, planned.name, say)
        distributed.agreed(True)
        started = time.monotonic()
        log({"stage": planned.name, "event": "start", "fingerprint": planned.stamp.fingerprint})
        planned.stage.compute(context)
        _record(planned, time.monotonic() - started)
        context.checkpoint.unlink(missing_ok=True)
        log({"stage": planned.name, "event": "done", "fingerprint": planned.stamp.fingerprint})
    return True


def _set_aside_damaged(items: Iterable[Planned], say: Callable[[str], None]) -> None:
    for item in items:
        set_aside_damaged(item.path, item.stamp.fingerprint, item.name, say)


def _help(planned: Planned, context: Context) -> bool:
    """What every process but the leader does: its part of the work, if the leader says that there is work."""
    if not distributed.agreed(False):
        return False
    planned.stage.compute(replace(context, log=lambda _: None))
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


def software_versions() -> dict[str, str]:
    """Versions of what results depend on."""
    names = ("torch", "torchvision", "timm", "numpy", "h5py", "pydensecrf2", "pillow")
    return {name: _version(name) for name in names}


@cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _needed(config: Config) -> set[str]:
    """The stages that lead to the segmentation network."""
    inputs = {stage.name: stage.inputs(config) for stage in STAGES}
    needed, queue = set(), [STAGES[-1].name]
    while queue:
        name = queue.pop()
        needed.add(name)
        queue += inputs[name]
    return needed


def _section(config: Config, name: str) -> dict[str, Any]:
    """A stage's configuration as it enters its fingerprint: weight files by content, not by path."""
    section = getattr(config, name)
    tree = to_tree(section)
    if isinstance(section, TrainConfig):
        tree["weights"] = weights_identity(section.backbone, section.weights)
    return tree


def _require(inputs: Mapping[str, Planned], name: str) -> None:
    missing = [item.name for item in inputs.values() if not item.cached]
    if missing:
        raise UserError(
            f"stage {name} needs the result of {missing[0]}, which is not cached for this configuration; "
            f"`run` computes everything that is missing, `stage {missing[0]}` that stage alone"
        )


def _record(planned: Planned, seconds: float) -> None:
    record = {
        "stage": planned.name,
        "fingerprint": planned.stamp.fingerprint,
        "seconds": round(seconds, 3),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "software": dict(planned.stamp.software),
        "material": planned.stamp.material,
    }
    write_record(planned.path, record)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:12] + "..."
