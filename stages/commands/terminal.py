"""Words for people on the terminal: tables, sizes, times, and what an error means."""

import errno
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from wsss.errors import SHOWN, UserError
from wsss.store.artifacts import DamagedArtifactError

KEPT = "what was finished is kept; rerun the same command to resume"
ELSEWHERE = {
    "init": "copy the images to where you may write",
    "tags": "give another --output FILE",
    "compare": "give another --out FILE",
    "predict": "give another --out DIR",
    "export": "give another --out DIR",
    "import": "give another --out DIR",
}
"""How to write elsewhere, by command; the others write into --workspace."""
_LONGEST = 300
_CAUSES = {
    errno.ENOSPC: "The disk is full: make room, or {elsewhere}.",
    errno.EDQUOT: "Your quota is used up: make room, or {elsewhere}.",
    errno.EMFILE: "Too many open files: raise the limit (`ulimit -n 4096`) or lower run.workers.",
    errno.ENFILE: "Too many open files on this machine: end other programs or lower run.workers.",
    errno.EROFS: "The file system is read-only: {elsewhere}.",
    errno.EACCES: "Access is not allowed: correct the rights, or {elsewhere}.",
    errno.ELOOP: "A link stands where this program keeps a file of its own: remove the link.",
    errno.ENOENT: "It was there when the run began and is gone: put it back.",
    errno.ENOMEM: "Less memory is needed with a smaller batch, crop or max_side, or with fewer run.workers.",
}


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


def explained(error: BaseException, command: str = "") -> str:
    """What happened and what to do, in one to three lines, for whatever ended a command."""
    text = _shortened(error)
    match error:
        case UserError():
            return str(error) + _whole(error.items)
        case DamagedArtifactError():
            return f"{error}\n`run` and `stage` set such a file aside and compute it again."
        case ModuleNotFoundError():
            return f"the package {error.name} is not installed here: pip install -r requirements.txt"
        case MemoryError():
            return f"not enough memory ({text}); {KEPT}.\n{_CAUSES[errno.ENOMEM]}"
        case BrokenProcessPool():
            return (
                f"a worker process was ended from outside, often for lack of memory ({text}); {KEPT}.\n"
                "If it happens again: --set run.workers=1 (or 0), or end other programs."
            )
        case OSError():  # HDF5 gives no number: its text names the reason
            cause = _CAUSES.get(
                error.errno or 0, "" if error.errno else "Check that the disk is there and has room."
            )
            elsewhere = ELSEWHERE.get(command, "give another --workspace DIR")
            return f"{text}; {KEPT}.\n{cause.format(elsewhere=elsewhere)}".rstrip()
        case RuntimeError():  # torch's for everything: memory, a worker that is gone, a device
            return (
                f"{text}; {KEPT}.\nIf memory is short or a worker process has gone: smaller batch, crop or max_side, "
                "or fewer run.workers.\nIf it happens again, please report what the same command prints with --debug."
            )
    return (
        f"a bug in this program: {type(error).__name__}: {text}; {KEPT}.\n"
        "Please report it with what the same command prints with --debug."
    )


def _whole(items: Sequence[str]) -> str:
    """Where all of a list is that is too long for a message; nothing if it is short, or nothing can be written."""
    if len(items) <= SHOWN:
        return ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="wsss-", suffix=".txt", encoding="utf-8", errors="backslashreplace", delete=False
        ) as file:
            file.write("".join(f"{item}\n" for item in items))
    except OSError:
        return ""
    return f"\nAll {len(items)}: {file.name}"


def printable(text: str) -> str:
    """The same without characters that would steer the terminal: names come from files of others."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else f"\\x{ord(letter):02x}" for letter in text
    )


def _shortened(error: BaseException) -> str:
    words = str(error).strip()
    if "Original Traceback" in words:  # of a worker that loads images: what it said is the last line
        words = words.splitlines()[-1]
    words = re.sub(r"\.tmp-\d+\.\d+-\w+", "", words)  # the file as the user knows it
    text = " ".join(words.split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
