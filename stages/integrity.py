"""Whether artifacts are what was written: checksums, and what becomes of a damaged file.

Every artifact has a record beside it (``<fingerprint>.json``) with the checksum of the whole file, as HDF5's own
checksums cover arrays alone. It is held against the file whenever a command uses the artifact: 0.5 s per GiB.
An artifact without a recorded checksum (an older workspace, a kill in the last moment) is read as a whole first.
Shards and checkpoints end in a checksum of their own.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wsss.store.artifacts import Artifact, DamagedArtifactError
from wsss.store.files import exclusive, file_sha256, is_sealed, is_temporary, set_aside, write_text
from wsss.store.json_files import parse_json

Say = Callable[[str], None]


def record_path(artifact: Path) -> Path:
    """The record beside an artifact: how it was computed, and its checksum."""
    return artifact.with_suffix(".json")


def read_record(artifact: Path) -> dict[str, Any]:
    """An artifact's record; empty where there is none that can be read."""
    try:
        record = parse_json(record_path(artifact).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(artifact: Path, entries: Mapping[str, Any]) -> None:
    """Write an artifact's record, with its checksum."""
    record = {**entries, "sha256": file_sha256(artifact)}
    write_text(record_path(artifact), json.dumps(record, indent=1, ensure_ascii=False))


def verify(artifact: Path, fingerprint: str) -> None:
    """Make sure that an artifact is the file that was written.

    Raises:
        DamagedArtifactError: it is not; the message names it and the reason.
    """
    opened = Artifact(artifact, fingerprint=fingerprint)
    try:
        record = read_record(artifact)
        if "sha256" not in record:
            opened.check()
            _remember(artifact, {"fingerprint": fingerprint, **record})
        elif record["sha256"] != file_sha256(artifact):
            raise DamagedArtifactError(f"{artifact}: it has changed since it was written (sha256)")
    finally:
        opened.close()


def set_aside_damaged(artifact: Path, fingerprint: str, name: str, say: Say) -> None:
    """Rename what stands under an artifact's name and is none, so that it is computed anew and not lost.

    A file that does not fit its record may be one that another process is writing anew: its lock decides.
    """
    if _damage(artifact, fingerprint) is None:
        return
    with exclusive(artifact, lambda: say(f"{name}: another process computes this; waiting for it")):
        if (error := _damage(artifact, fingerprint)) is not None:
            say(f"{name}: {error}; set aside as {set_aside(artifact).name}, will be computed anew")


def _damage(artifact: Path, fingerprint: str) -> DamagedArtifactError | None:
    """What is wrong with an artifact; None where nothing is, or where there is none."""
    try:
        if artifact.exists():
            verify(artifact, fingerprint)
    except DamagedArtifactError as error:
        return error
    return None


def set_aside_unfinished(artifact: Path, checkpoint: Path, name: str, say: Say) -> None:
    """Do the same to damaged shards and a damaged checkpoint of an artifact that is about to be computed."""
    for path in _unfinished(artifact, checkpoint):
        if not is_sealed(path):
            aside = set_aside(path, artifact)
            say(f"{name}: {path}: damaged; set aside as {aside.name}, that part is computed anew")


def tidy(artifact: Path, checkpoint: Path) -> None:
    """Remove what a process that died in its last moments left beside a finished artifact.

    Where another process computes that artifact anew, nothing is touched.
    """
    lock = artifact.with_name(f"{artifact.name}.lock")
    if not (lock.exists() or checkpoint.exists() or parts_of(artifact).exists()):
        return
    with contextlib.suppress(BlockingIOError), exclusive(artifact, _busy):
        remove_leftovers(artifact)
        checkpoint.unlink(missing_ok=True)


def _busy() -> None:
    raise BlockingIOError


def remove_leftovers(artifact: Path) -> None:
    """Remove what a killed computation of an artifact left half written. Its lock must be held."""
    for path in (*artifact.parent.glob(f"{artifact.stem}.*"), *parts_of(artifact).glob("*")):
        if is_temporary(path):
            path.unlink(missing_ok=True)
    if artifact.exists():
        shutil.rmtree(parts_of(artifact), ignore_errors=True)


def parts_of(artifact: Path) -> Path:
    """The folder of an artifact's shards."""
    return artifact.with_name(f"{artifact.name}.parts")


def _unfinished(artifact: Path, checkpoint: Path) -> Iterator[Path]:
    yield from sorted(parts_of(artifact).glob("*.h5"))
    if checkpoint.exists():
        yield checkpoint


def _remember(artifact: Path, record: Mapping[str, Any]) -> None:
    """Write the record of an artifact that had none; not where the workspace cannot be written."""
    try:
        write_record(artifact, record)
    except OSError:
        return
