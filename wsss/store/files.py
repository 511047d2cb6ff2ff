"""Files that are whole or not there: atomic writes, locks, seals, and the remains of processes that died.

Folders that results are written to: whatever links lie in one, nothing is written outside of it.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wsss.errors import UserError, listed
from wsss.runtime.interrupt import check

OF_THE_MACHINE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Why a whole file cannot be opened; it must not be taken for a damaged one and computed anew."""
_HOST = re.sub(r"\W", "_", socket.gethostname())[:64]
_LONGEST_NAME = 255  # bytes, of the usual file systems
_TEMPORARY = re.compile(r"\.tmp-(?P<pid>\d+)(\.\d+)?(-(?P<host>\w+))?$")
_SLACK = 2 << 20  # bytes for what HDF5 writes beside the arrays
_PAUSE = 0.1  # seconds between two looks at a lock
_SEAL = b"\nwsss sha256 "
_SEAL_LENGTH = len(_SEAL) + 64


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


def temporary_path(path: Path) -> Path:
    """A name beside ``path`` that no other thread, process or machine uses."""
    suffix = f".tmp-{os.getpid()}.{threading.get_ident()}-{_HOST}"
    # A name may be as long as the file system allows, and this one not longer.
    name = os.fsencode(path.name)[: _LONGEST_NAME - len(suffix)].decode(errors="ignore")
    return path.with_name(f"{name}{suffix}")


def is_temporary(path: Path) -> bool:
    """Whether a file has a name of `temporary_path`."""
    return _TEMPORARY.search(path.name) is not None


def is_being_written(path: Path) -> bool:
    """Whether a file is a temporary one of a living process of this machine."""
    found = _TEMPORARY.search(path.name)
    return found is not None and found["host"] == _HOST and _alive(int(found["pid"]))


def remove_remains(folder: Path) -> None:
    """Remove the temporary files in a folder whose process on this machine has ended."""
    for path in folder.glob("*.tmp-*"):
        found = _TEMPORARY.search(path.name)
        if found and found["host"] == _HOST and not is_being_written(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold ``<path>.lock``: one process computes an artifact, a second one calls ``waiting`` and then waits.

    The lock is the kernel's (flock), so it ends with its process, however that dies. Its file goes with it.

    Raises:
        Interrupted: a stop was asked for while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    while True:
        with append(lock) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                _lock_when_free(handle.fileno())
            if not _is_still(lock, handle.fileno()):
                continue  # the one before has removed it: whoever comes now locks another file
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def require_room(path: Path, size: int) -> None:
    """Make sure that a file that is being written can grow by ``size`` bytes.

    HDF5 has to be told beforehand: where it cannot flush a file, it ends the process by a segmentation fault.

    Raises:
        OSError: the disk is full (ENOSPC), or files may not become so large (EFBIG).
    """
    wanted = size + _SLACK
    if shutil.disk_usage(path.parent).free < wanted:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and path.stat().st_size + wanted > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def seal(path: Path) -> None:
    """Append the checksum of a file's content to it; HDF5 does not mind what follows its own end."""
    digest = file_sha256(path)
    with path.open("ab") as file:
        file.write(_SEAL + digest.encode())


def is_sealed(path: Path) -> bool:
    """Whether a file ends in the checksum of what comes before, as `seal` left it."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END) - _SEAL_LENGTH
        if length < 0:
            return False
        file.seek(length)
        end = file.read()
        return end.startswith(_SEAL) and end[len(_SEAL) :] == file_sha256(path, length).encode()


def set_aside(path: Path, beside: Path | None = None) -> Path:
    """Rename a damaged file, to lie beside another; `prune` removes it."""
    place = (beside or path).parent
    prefix = path.name if beside is None else f"{beside.name}.{path.name.removeprefix(f'{beside.name}.')}"
    aside = place / f"{prefix}.damaged-{time.time_ns()}"
    path.rename(aside)
    return aside


def file_sha256(path: Path, length: int | None = None, *, start: int = 0) -> str:
    """The checksum of a file, or of ``length`` bytes of it from ``start`` on."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        left = path.stat().st_size - start if length is None else length
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _lock_when_free(descriptor: int) -> None:
    """Wait for a lock and heed a request to stop, which a wait in the kernel would sleep through."""
    while True:
        check()
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class OutputFolder:
    """A folder of results. It may be a link itself, as one to a larger disk is; links in it must not lead out of it.

    A link under the very name of a result does no harm: files are renamed into their places, which replaces it.

    Attributes:
        root: the folder; it need not exist.
    """

    root: Path

    def place(self, name: str) -> Path:
        """Where a result belongs; the name is relative, with ``/``, and ends in one where it is a folder.

        Raises:
            UserError: a link among the folders of that name leads out of this one.
        """
        self.hold([name])
        return self.root / name

    def hold(self, names: Iterable[str]) -> None:
        """Make sure that results of these names would lie inside. Raises UserError as `place`."""
        real = os.path.realpath(self.root)
        folders = sorted({name.rpartition("/")[0] for name in names})
        outside = [folder for folder in folders if not _is_within(os.path.realpath(self.root / folder), real)]
        if outside:
            links = sorted({self._link(folder, real) for folder in outside})
            raise UserError(
                f"{listed(links, ', ')}: a link that leads out of the output folder {self.root}, through which nothing "
                "is written.\nPut a folder in its place, or give another output folder (it may be a link itself)."
            )

    def _link(self, folder: str, real: str) -> str:
        """The first part of a folder's name that leads outside, and where it leads."""
        parts = Path(folder).parts
        places = [self.root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
        first = next(place for place in places if not _is_within(os.path.realpath(place), real))
        return f"{first} -> {os.path.realpath(first)}"


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
