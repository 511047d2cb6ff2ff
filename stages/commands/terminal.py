"""Figures and tables on the terminal.

What a fault means, in words for the user: one to three lines, without a traceback.
"""

import errno
import itertools
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from wsss.errors import UserError
from wsss.store.artifacts import DamagedArtifactError


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells as lines with aligned columns, a rule below the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "-" * len(max(lines, key=len)), *lines[1:]])


def human_bytes(size: float) -> str:
    """Bytes in B, KiB, MiB or GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def human_seconds(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


KEPT = "what was finished is kept, the same command goes on from there"
_LONGEST = 300
_ENDED = ("dataloader worker", "worker (pid", "worker exited unexpectedly")
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "could not create a primitive",  # oneDNN, where it gets no memory for a convolution
    "failed to map segment",  # of a library, where a limit is too low to load it
    "unable to allocate",
    "bad_alloc",
)
_CAUSES = {
    errno.ENOSPC: "the disk is full: make room, or give another --workspace DIR",
    errno.EDQUOT: "your quota is used up: make room, or give another --workspace DIR",
    errno.EFBIG: "the file would be larger than is allowed here (see `ulimit -f`)",
    errno.EMFILE: "too many open files: raise the limit (`ulimit -n 4096`) or lower run.workers",
    errno.ENFILE: "too many open files on this machine: end other programs or lower run.workers",
    errno.EROFS: "the file system is read-only: give another --workspace DIR",
    errno.EACCES: "access is not allowed: correct the rights, or give another --workspace DIR",
    errno.ELOOP: "a link stands where this program keeps a file of its own: remove the link",
    errno.ENOENT: "it was there when the run began and is gone: put it back",
}


def explained(error: Exception) -> str:
    """What happened and what to do, for whatever ended a command."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, DamagedArtifactError):
        return f"{error}\n`run` and `stage` set such a file aside and compute it anew."
    text = _shortened(error)
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _NO_MEMORY):
        return (
            f"not enough memory ({text}); {KEPT}.\nLess is needed with a smaller batch, crop or max_side of the stage, "
            "or with fewer run.workers."
        )
    if isinstance(error, BrokenProcessPool) or any(words in text.lower() for words in _ENDED):
        return (
            f"a worker process was ended from outside, often for lack of memory ({text}); {KEPT}.\n"
            "If it happens again: --set run.workers=1 (or 0), or end other programs."
        )
    if isinstance(error, OSError) or _number(error):
        cause = _CAUSES.get(_number(error) or 0)
        return f"{text}; {KEPT}." + (f"\n{cause[0].upper()}{cause[1:]}." if cause else "")
    return (
        f"a fault of this program: {type(error).__name__}: {text}; {KEPT}.\n"
        "Please report it with what the same command prints with --debug."
    )


def printable(text: str) -> str:
    """The same without characters that would steer the terminal: names come from files of others."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else f"\\x{ord(letter):02x}" for letter in text
    )


def _shortened(error: Exception) -> str:
    words = str(error).strip()
    if "Original Traceback" in words:  # of a worker that loads images: what it said is the last line
        words = words.splitlines()[-1]
    text = " ".join(words.split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _number(error: Exception) -> int | None:
    """The system's error number, also where h5py has put it into words (``errno = 28``)."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    words = str(error).replace("=", " ").replace(",", " ").split()
    follows = [after for word, after in itertools.pairwise(words) if word == "errno"]
    return int(follows[0]) if follows and follows[0].isdigit() else None
