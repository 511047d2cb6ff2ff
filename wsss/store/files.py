"""Files that are whole or not there: written in one step, locked, sealed by a checksum, set aside when damaged.

One checksum for all files that the program keeps, the seal: the sha256 of all bytes before it, at the end of the file.
In JSON it is the last key, ``sha256``; in other files a last line, which HDF5 does not mind. A file's seal is checked
when a command uses the file (0.5 s per GiB).
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import filelock
import msgspec

from wsss.errors import UserError, listed
from wsss.runtime import interrupt

_HOST = re.sub(r"\W", "_", socket.gethostname())[:64]
_LONGEST_NAME = 255  # bytes, of the usual file systems
_TEMPORARY = re.compile(r"\.tmp-(?P<pid>\d+)(\.\d+)?(-(?P<host>\w+))?$")
_SLACK = 2 << 20  # bytes for what HDF5 writes beside the arrays
_SEAL_LINE, _SEAL_KEY = b"\nwsss sha256 ", b', "sha256": "'
_SEAL = re.compile(
    rb"(?:%b(?P<line>[0-9a-f]{64})|%b(?P<key>[0-9a-f]{64})\"\})\Z" % (_SEAL_LINE, re.escape(_SEAL_KEY))
)
_LONGEST_SEAL = 64 + max(len(_SEAL_LINE), len(_SEAL_KEY) + 2)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.unlink(missing_ok=True)  # a link that somebody has put there must not be followed
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        with contextlib.suppress(OSError):  # some file systems cannot write a folder out; the file is whole
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append(path: Path) -> IO[str]:
    """Open a UTF-8 file of the program's own to append to it; a link in its place is an error (ELOOP)."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8")


def parse_json(content: bytes | str) -> Any:
    """Parse JSON. Raises ValueError: not JSON, not UTF-8, nested too deeply, or a number out of range."""
    try:
        return msgspec.json.decode(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN becomes null."""
    write_text(path, msgspec.json.format(_encoded(value), indent=1).decode())


def write_sealed_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object that is not empty as JSON with its seal, atomically; NaN becomes null."""
    content = _encoded(values).removesuffix(b"}")
    digest = hashlib.sha256(content).hexdigest().encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content + _SEAL_KEY + digest + b'"}')


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes; NaN is null."""
    return _encoded(value, order="sorted")


def digest_of(value: Any) -> str:
    """First 16 hex digits of sha256 over a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:16]


def seal(path: Path) -> None:
    """Append a file's seal to it, as a last line."""
    digest = file_sha256(path)
    with path.open("ab") as file:
        file.write(_SEAL_LINE + digest.encode())


def is_sealed(path: Path) -> bool:
    """Whether a file is as it was when it got its seal; False for one without."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _LONGEST_SEAL))
        found = _SEAL.search(file.read())
    if found is None:
        return False
    return file_sha256(path, start + found.start()).encode() == (found["line"] or found["key"])


def is_kept(path: Path, otherwise: str, say: Callable[[str], None] | None = None) -> bool:
    """Whether a sealed file is there as it was written.

    A damaged one is set aside, and ``say`` (standard error) is told, and what happens ``otherwise``: "it is computed
    again".
    """
    if not path.exists():
        return False
    if is_sealed(path):
        return True
    sentence = (
        f"{path}: damaged (its checksum does not hold); set aside as {set_aside(path).name}, {otherwise}"
    )
    say(sentence) if say else print(sentence, file=sys.stderr)
    return False


def set_aside(path: Path) -> Path:
    """Give a damaged file another name, under which `prune` removes it."""
    return path.rename(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))


def file_sha256(path: Path, length: int | None = None) -> str:
    """The sha256 of a file, or of its first ``length`` bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = path.stat().st_size if length is None else length
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold ``<path>.lock``: one process computes an artifact; others tell ``waiting`` of that file and wait.

    The lock is the kernel's and ends with its process, however that dies. On file systems without locks (some NFS, some
    clusters) the file itself stands for it, with the names of machine and process in it.

    Raises:
        BlockingIOError: another process holds it, and ``waiting`` is None.
        Interrupted: a stop was asked for while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f"{path.name}.lock")
    lock = _lock_class(path.parent)(place)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        if waiting is None:
            raise BlockingIOError(errno.EAGAIN, "locked by another process", str(place)) from None
        waiting(str(place))
        with contextlib.suppress(filelock.Timeout):
            lock.acquire(poll_interval=0.1, cancel_check=interrupt.requested)
        interrupt.check()
    try:
        yield
    finally:
        if not isinstance(lock, filelock.SoftFileLock):
            place.unlink(missing_ok=True)  # while it is held: whoever waits for it sees that it is gone
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of ``path``."""
    if not path.with_name(f"{path.name}.lock").exists():
        return False
    try:
        with exclusive(path):
            return False
    except BlockingIOError:
        return True


def require_room(path: Path, size: int) -> None:
    """Raise OSError (ENOSPC) where the disk is too full for a file to grow by ``size`` bytes.

    HDF5 has to be told beforehand: where it cannot flush a file, it ends the process by a segmentation fault.
    """
    if shutil.disk_usage(path.parent).free < size + _SLACK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def temporary_path(path: Path) -> Path:
    """A name beside ``path`` that no other thread, process or machine uses, and that is not too long either."""
    suffix = f".tmp-{os.getpid()}.{threading.get_ident()}-{_HOST}"
    name = os.fsencode(path.name)[: _LONGEST_NAME - len(suffix)].decode(errors="ignore")
    return path.with_name(f"{name}{suffix}")


def is_temporary(path: Path) -> bool:
    """Whether a file has a name of `temporary_path`."""
    return _TEMPORARY.search(path.name) is not None


def is_being_written(path: Path) -> bool:
    """Whether a file is a temporary one of a living process of this machine."""
    found = _TEMPORARY.search(path.name)
    if found is None or found["host"] != _HOST:
        return False
    try:
        os.kill(int(found["pid"]), 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def remove_remains(folder: Path) -> None:
    """Remove the temporary files in a folder whose process on this machine has ended."""
    for path in folder.glob(f"*.tmp-*-{_HOST}"):
        if is_temporary(path) and not is_being_written(path):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class OutputFolder:
    """A folder of results, which need not exist. It may be a link itself; links in it must not lead out of it.

    A link under the very name of a result does no harm: files are renamed into their places, which replaces it.
    """

    root: Path

    def place(self, name: str) -> Path:
        """Where a result belongs; the name is relative, with ``/``, and ends in one where it is a folder.

        Raises UserError where a link among the folders of that name leads out of this one.
        """
        self.hold([name])
        return self.root / name

    def hold(self, names: Iterable[str]) -> None:
        """Make sure that results of these names would lie inside. Raises UserError as `place`."""
        real, outside = Path(os.path.realpath(self.root)), []
        for folder in sorted({name.rpartition("/")[0] for name in names}):
            target = Path(os.path.realpath(self.root / folder))
            if not target.is_relative_to(real):
                outside.append(f"{self.root / folder} -> {target}")
        if outside:
            raise UserError(
                f"{listed(outside, ', ')}: through a link that leads out of the output folder {self.root} nothing is "
                "written.\nPut a folder in its place, or give another output folder (which may be a link)."
            )


def _encoded(value: Any, **options: Any) -> bytes:
    # numpy's scalars are no numbers to msgspec
    return msgspec.json.encode(value, enc_hook=lambda other: other.item(), **options)


@cache
def _lock_class(folder: Path) -> type[filelock.BaseFileLock]:
    """The kernel's locks, or files that stand for them where the file system has none."""
    probe = temporary_path(folder / "lock-test")
    try:
        probe.touch()  # what fails from here on is the lock, in whatever way this file system says so
        with filelock.FileLock(probe, fallback_to_soft=False):
            return filelock.FileLock
    except OSError as error:
        if not probe.exists():
            raise
        _tell_of_no_locks(error.strerror or str(error))
        return filelock.SoftFileLock
    finally:
        probe.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache  # said once
def _tell_of_no_locks(reason: str) -> None:
    print(
        f"note: the file system of the workspace has no locks ({reason}); files named *.lock stand for them.\nOne that "
        "a crashed computer has left makes other computers wait: remove it then.",
        file=sys.stderr,
    )
