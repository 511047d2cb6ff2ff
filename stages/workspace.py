"""The workspace on disk: shared artifacts and scores, and one folder per named run.

<workspace>/artifacts/<stage>/<fingerprint>.h5    and .json: how it was computed
<workspace>/scores/                               scores by what they depend on
<workspace>/files-<data set>.json                 a data set's checked files
<workspace>/<run>/config.toml, run.json, log.jsonl, overview.png, report.html, report.json
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from stages import Planned
from wsss.config import Config, load_config, to_toml
from wsss.errors import UserError, listed
from wsss.store.artifacts import SCHEMA, Artifact, read_record, verify
from wsss.store.files import (
    OutputFolder,
    append,
    is_being_written,
    is_locked,
    is_temporary,
    parse_json,
    remove_remains,
    set_aside,
    temporary_path,
    write_json,
    write_text,
)

RESERVED = ("artifacts", "scores")
_Fingerprint: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class _Entry(msgspec.Struct):
    """What run.json says of a finished stage, at the least."""

    fingerprint: _Fingerprint
    material: dict[str, Any]


class _Record(msgspec.Struct):
    """What run.json holds, at the least."""

    stages: dict[str, _Entry] = {}
    planned: dict[str, _Fingerprint] = {}
    preset: dict[str, Any] = {}
    classes: list[str] = []


@dataclass(frozen=True)
class Workspace:
    """A workspace folder."""

    root: Path

    @property
    def output(self) -> OutputFolder:
        """The folder as one that is written to."""
        return OutputFolder(self.root)

    def file_index(self, data_root: str) -> Path:
        """The cache of a data set's checked files."""
        return self.root / f"files-{hashlib.sha256(data_root.encode()).hexdigest()[:12]}.json"

    def make(self) -> None:
        """Create the folder and make sure that files can be written.

        Raises:
            UserError: not possible; the message says why.
        """
        self.refuse_links()
        probe = temporary_path(self.root / "write-test")
        try:
            (self.root / "artifacts").mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
            for folder in (self.root, self.root / "scores"):
                remove_remains(folder)
        except OSError as error:
            raise UserError(
                f"workspace {self.root}: not writable ({error.strerror}); "
                "give another, or a copy of this one where you may write, with --workspace DIR"
            ) from None

    def refuse_links(self) -> None:
        """Raise UserError where a folder of artifacts or scores is a link that leads out of the workspace.

        What lies in them is written, and removed by `prune`, as the workspace's own.
        """
        folders = ("artifacts", "artifacts/*", "artifacts/*/*.parts", "scores")
        found = [path for name in folders for path in self.root.glob(name) if path.is_symlink()]
        self.output.hold(f"{path.relative_to(self.root).as_posix()}/" for path in found)

    def run(self, name: str) -> "Run":
        """The run of a name.

        Raises:
            UserError: not usable as a folder name.
        """
        if not re.fullmatch(r"[\w][\w .+-]{0,99}", name) or name in RESERVED:
            raise UserError(
                f"--name {name!r}: expected letters, digits, spaces and . + - _ (at most 100), "
                f"not {' or '.join(RESERVED)}"
            )
        return Run(self.root / name)

    def runs(self) -> list["Run"]:
        """All runs, by name."""
        return [Run(path.parent) for path in sorted(self.root.glob("*/run.json"))]

    @property
    def known(self) -> str:
        """The runs, for messages."""
        return listed([run.folder.name for run in self.runs()], ", ") or "there is none yet"


@dataclass(frozen=True)
class Run:
    """The folder of a named run: which artifacts belong to it, under which configuration."""

    folder: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration of the last `run` or `stage`."""
        return self.folder / "config.toml"

    @property
    def overview(self) -> Path:
        """The overview."""
        return self.folder / "overview.png"

    @property
    def _record_file(self) -> Path:
        return self.folder / "run.json"

    def record(self) -> dict[str, Any]:
        """The run's run.json; empty where there is none.

        Raises:
            UserError: it cannot be read.
        """
        if not self._record_file.exists():
            return {}
        try:
            record: dict[str, Any] = parse_json(self._record_file.read_bytes())
            msgspec.convert(record, _Record)
            return record
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._record_file}: damaged ({error}); `run_pipeline.py run --name '{self.folder.name}'` sets it "
                "aside and writes it again, nothing is computed twice"
            ) from None

    def repair(self) -> None:
        """Set a damaged run.json aside, and remove what a killed command left half written.

        Raises:
            UserError: the folder, or one in it, is a link that leads out of the workspace.
        """
        inner = [path for path in self.folder.glob("*") if path.is_symlink() and path.is_dir()]
        names = [path.relative_to(self.folder.parent).as_posix() for path in (self.folder, *inner)]
        OutputFolder(self.folder.parent).hold(f"{name}/" for name in names)
        remove_remains(self.folder)
        try:
            record = self.record()
        except UserError:
            aside = set_aside(self._record_file).name
            print(f"{self._record_file}: damaged; set aside as {aside}, it is written again")
            return
        if any(entry["material"].get("schema") != SCHEMA for entry in record.get("stages", {}).values()):
            print(
                f"note: the results of run {self.folder.name} are of an earlier version of this program; they are "
                "computed from scratch (`prune` removes the old ones)"
            )

    def announce(self, stages: Mapping[str, Planned]) -> None:
        """Write down which artifacts the run is going to make, so that `prune` spares what is half done."""
        write_json(
            self._record_file,
            {"schema": 1, "stages": {}} | self.record() | {"planned": _fingerprints(stages)},
        )

    def save(
        self,
        config: Config,
        stages: Mapping[str, Planned],
        headlines: Mapping[str, Mapping[str, Any]],
        preset: Mapping[str, Any],
    ) -> None:
        """Write config.toml and run.json: fingerprint, material and single figures of every finished stage."""
        write_text(self.config_file, to_toml(config))
        entries = {
            name: {
                "fingerprint": item.stamp.fingerprint,
                "material": item.stamp.material,
                "bytes": item.path.stat().st_size,
                "computed": computed(item),
                "scores": dict(headlines.get(name, {})),
            }
            for name, item in stages.items()
            if item.cached
        }
        record = {
            "schema": 1,
            "classes": list(next(iter(stages.values())).stamp.classes),
            "planned": _fingerprints(stages),
            "preset": dict(preset),
            "stages": entries,
        }
        write_json(self._record_file, record)

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one event to log.jsonl."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stamped = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event}
        with append(self.folder / "log.jsonl") as file:
            file.write(json.dumps(stamped, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class FinishedRun:
    """A run with its resolved configuration and what run.json says of each stage; its data set may be gone."""

    run: Run
    workspace: Workspace
    config: Config
    stages: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.folder.name

    def artifact(self, stage: str) -> Artifact:
        """A stage's artifact.

        Raises:
            UserError: there is none that can be used; the message names the command that computes it.
            DamagedArtifactError: it is not as it was written.
        """
        entry = self.stages.get(stage, {})
        fingerprint = entry.get("fingerprint", "")
        path = self.workspace.root / "artifacts" / stage / f"{fingerprint}.h5"
        reason = ""
        if not entry:
            reason = f"it has no result of stage {stage} ({self.run.folder / 'run.json'})"
        elif entry["material"].get("schema") != SCHEMA:
            reason = f"the result of stage {stage} is of an earlier version of this program"
        elif not path.exists():
            reason = f"the result of stage {stage} is gone ({path})"
        if reason:
            command = f"run_pipeline.py run --name '{self.name}' --workspace '{self.workspace.root}'"
            raise UserError(f"run {self.name}: {reason}; `{command}` computes it from scratch")
        verify(path, fingerprint)
        return Artifact(path)


def open_run(folder: Path, name: str, overrides: Sequence[str] = ()) -> FinishedRun:
    """Find a run by its name in a workspace folder; ``overrides`` (``run.key=value``) say where and how to compute.

    Raises:
        UserError: there is no such run, or an override of another section.
    """
    workspace = Workspace(folder.expanduser().resolve())
    run = workspace.run(name)
    if not (run.config_file.exists() and (run.folder / "run.json").exists()):
        raise UserError(
            f"{name}: no such run in {workspace.root}; expected one of: {workspace.known} "
            "(another place: --workspace DIR)"
        )
    foreign = [text for text in overrides if not text.strip().startswith("run.")]
    if foreign:
        raise UserError(
            f"--set {foreign[0]}: a finished run is used as it is; only run.device, run.precision and "
            "run.workers can be set here"
        )
    config = load_config(run.config_file, overrides)
    return FinishedRun(run, workspace, config, run.record().get("stages", {}))


def computed(item: Planned) -> dict[str, Any]:
    """How an artifact was computed: seconds, time, software; empty where that record is gone."""
    record = read_record(item.path)
    return {key: record[key] for key in ("seconds", "created", "software") if key in record}


def prune(workspace: Workspace, *, dry_run: bool) -> list[tuple[Path, int]]:
    """Remove what no run names: artifacts with their records, checkpoints and scores, remains of dead processes,
    and what is remembered of data sets that no run uses.

    Returns:
        What was (or with ``dry_run`` would be) removed, with its size in bytes.

    Raises:
        UserError: a folder is a link to what may be of others.
    """
    workspace.refuse_links()
    records = [run.record() for run in workspace.runs()]
    named = {entry["fingerprint"] for record in records for entry in record.get("stages", {}).values()}
    named |= {fingerprint for record in records for fingerprint in record.get("planned", {}).values()}
    unused = _unused_indexes(workspace)
    removed = []
    found = [path for kind in ("*", "scores/*", "artifacts/*/*") for path in workspace.root.glob(kind)]
    for path in sorted(found):
        nobodys = path.parent != workspace.root and not named & set(re.split(r"[-.]", path.name))
        wanted = not (nobodys or path in unused or _is_remains(path))
        if wanted or is_locked(path.with_name(f"{path.name.split('.')[0]}.h5")):
            continue
        removed.append((path, _size(path)))
        if not dry_run:
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
    return removed


def _unused_indexes(workspace: Workspace) -> set[Path]:
    """What is kept of the files of data sets that no run was made from; ``.listing``: of their annotation files."""
    kept = {*workspace.root.glob("files-*.json"), *workspace.root.glob("files-*.listing")}
    for run in workspace.runs():
        try:
            index = workspace.file_index(load_config(run.config_file, []).data.root)
            kept = {path for path in kept if not path.name.startswith(index.stem)}
        except UserError:  # a first run under way has no configuration yet
            return set()
    return kept


def _fingerprints(stages: Mapping[str, Planned]) -> dict[str, str]:
    return {name: item.stamp.fingerprint for name, item in stages.items()}


def _is_remains(path: Path) -> bool:
    """Whether a file is what an interrupted or finished computation left."""
    if path.is_dir():  # a run may have such a name
        return False
    if is_temporary(path):
        return not is_being_written(path)
    return bool(re.search(r"\.damaged-\d+$|\.lock$", path.name))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
