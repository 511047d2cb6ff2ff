"""The workspace on disk: shared artifacts and scores, and one folder per named run.

<workspace>/artifacts/<stage>/<fingerprint>.h5    and .json: how it was computed
<workspace>/scores/                               scores by what they depend on
<workspace>/files-<data set>.json                 a data set's checked files, and .listing: its samples
<workspace>/<run>/config.toml, run.json, log.jsonl, overview.png
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import Planned
from stages.integrity import read_record
from wsss.config import Config, load_config, to_toml
from wsss.errors import UserError
from wsss.store.files import (
    OutputFolder,
    append,
    is_being_written,
    is_temporary,
    remove_remains,
    set_aside,
    temporary_path,
    write_text,
)
from wsss.store.json_files import parse_json

RESERVED = ("artifacts", "scores")


@dataclass(frozen=True)
class Workspace:
    """A workspace folder.

    Attributes:
        root: the folder.
    """

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
                f"workspace {self.root}: not writable ({error.strerror}); choose another with --workspace DIR"
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

    def runs(self) -> Iterator["Run"]:
        """All runs, by name."""
        for path in sorted(self.root.glob("*/run.json")):
            yield Run(path.parent)


@dataclass(frozen=True)
class Run:
    """One named run: which artifacts belong to it, under which configuration.

    Attributes:
        folder: of the run.
    """

    folder: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration of the last `run` or `stage`."""
        return self.folder / "config.toml"

    @property
    def overview(self) -> Path:
        """The picture."""
        return self.folder / "overview.png"

    def record(self) -> dict[str, Any]:
        """The run's run.json; empty where there is none.

        Raises:
            UserError: it cannot be read.
        """
        path = self.folder / "run.json"
        if not path.exists():
            return {}
        try:
            return _checked_record(parse_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: damaged ({error}); `run_pipeline.py run --name '{self.folder.name}'` sets it aside and "
                "writes it anew, nothing is computed twice"
            ) from None

    def mend(self) -> None:
        """Set a damaged run.json aside, and remove what a killed command left half written.

        Raises:
            UserError: the folder, or one in it, is a link that leads out of the workspace.
        """
        inner = [path for path in self.folder.glob("*") if path.is_symlink() and path.is_dir()]
        names = [path.relative_to(self.folder.parent).as_posix() for path in (self.folder, *inner)]
        OutputFolder(self.folder.parent).hold(f"{name}/" for name in names)
        remove_remains(self.folder)
        try:
            self.record()
        except UserError:
            path = self.folder / "run.json"
            print(f"{path}: damaged; set aside as {set_aside(path).name}, it is written anew")

    def announce(self, stages: Mapping[str, Planned]) -> None:
        """Write down which artifacts the run is going to make, so that `prune` spares what is half done."""
        record = {"schema": 1, "stages": {}} | self.record() | {"planned": _fingerprints(stages)}
        write_text(self.folder / "run.json", json.dumps(record, indent=1, ensure_ascii=False))

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
        write_text(self.folder / "run.json", json.dumps(record, indent=1, ensure_ascii=False))

    def log(self, event: Mapping[str, Any]) -> None:
        """Append one event to log.jsonl."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stamped = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event}
        with append(self.folder / "log.jsonl") as file:
            file.write(json.dumps(stamped, ensure_ascii=False) + "\n")


def computed(item: Planned) -> dict[str, Any]:
    """How an artifact was computed: seconds, time, software; empty where that record is gone."""
    record = read_record(item.path)
    return {key: record[key] for key in ("seconds", "created", "software") if key in record}


def prune(workspace: Workspace, *, dry_run: bool) -> list[tuple[Path, int]]:
    """Remove what no run names: artifacts with their records, checkpoints and measures, remains of dead processes,
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
    removed = []
    for path in sorted((workspace.root / "artifacts").glob("*/*")):
        if path.name.split(".")[0] in named and not _is_remains(path):
            continue
        if _in_use(path):
            continue
        removed.append((path, _size(path)))
    for path in sorted((workspace.root / "scores").glob("*")):
        if _is_remains(path) or not named & set(path.stem.split("-")):
            removed.append((path, _size(path)))
    removed += [(path, _size(path)) for path in sorted(workspace.root.glob("*")) if _is_remains(path)]
    removed += [(path, _size(path)) for path in _unused_listings(workspace)]
    if not dry_run:
        for path, _ in removed:
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
    return removed


def _unused_listings(workspace: Workspace) -> list[Path]:
    """What is kept of the files of data sets that no run was made from."""
    used = set()
    for run in workspace.runs():
        try:
            root = load_config(run.config_file, []).data.root
        except UserError:  # a first run under way has no configuration yet
            return []
        used.add(workspace.file_index(root))
    kept = [
        *workspace.root.glob("files-*.json"),
        *workspace.root.glob("files-*.listing"),
    ]  # the latter: of older versions
    return sorted(path for path in kept if path not in used)


def _checked_record(record: Any) -> dict[str, Any]:
    """A run.json whose parts are what they should be. Raises ValueError."""
    if not isinstance(record, dict):
        raise ValueError("not an object")
    kinds = {"stages": dict, "planned": dict, "preset": dict, "classes": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(record.get(key, kind()), kind)]
    entries = record.get("stages", {}) if not wrong else {}
    wrong += [name for name, entry in entries.items() if not _is_entry(entry)]
    wrong += [name for name, value in record.get("planned", {}).items() if not _is_fingerprint(value)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not what this program writes")
    return record


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and _is_fingerprint(entry.get("fingerprint"))
        and isinstance(entry.get("material"), dict)
    )


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) is not None


def _fingerprints(stages: Mapping[str, Planned]) -> dict[str, str]:
    return {name: item.stamp.fingerprint for name, item in stages.items()}


def _is_remains(path: Path) -> bool:
    """Whether a file is what an interrupted or finished computation left beside an artifact."""
    if is_temporary(path):
        return not is_being_written(path)
    return bool(re.search(r"\.damaged-\d+$|\.lock$", path.name))


def _in_use(path: Path) -> bool:
    """Whether a living process writes this, seen from the lock beside the artifact."""
    import fcntl

    lock = path.parent / f"{path.name.split('.')[0]}.h5.lock"
    if not lock.exists():
        return False
    with append(lock) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
