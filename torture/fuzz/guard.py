"""What reading a file must never do: write outside of its folder, unpickle, run a program or fetch something."""

import os
import sys
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen")
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
)


class ForbiddenError(BaseException):
    """Not an Exception, so that nobody's ``except Exception`` hides it."""


class Guard:
    """Watches this process from now on, as an audit hook; switched on around each case.

    Attributes:
        folder: the one place where files may be written.
        watching: whether it is on.
        seen: what was forbidden, also where the program went on as if nothing had happened.
    """

    def __init__(self) -> None:
        self.folder = os.devnull
        self.watching = False
        self.seen: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event in _FORBIDDEN or event == "socket.connect":
            self._refuse(f"{event}{arguments[:2]!r}")
        elif event == "open":
            path, mode, flags = (*arguments, None, 0, 0)[:3]
            writes = any(letter in (mode or "") for letter in "wax+") or (flags or 0) & _WRITES
            if writes and not self._inside(path):
                self._refuse(f"writes {path!r}")
        elif event in _CHANGES and not self._inside(arguments[0]):
            self._refuse(f"{event} {arguments[0]!r}")

    def _inside(self, path: Any) -> bool:
        if isinstance(path, int):
            return True  # a descriptor that was opened, and seen, before
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or f"{real}{os.sep}".startswith((f"{self.folder}{os.sep}", "/dev/shm"))

    def _refuse(self, what: str) -> None:
        self.seen.append(what)
        raise ForbiddenError(what)
