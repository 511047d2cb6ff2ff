"""Words on the terminal: what errors are called, in one to three lines that say what to do; tables; figures."""

import errno
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from stages.commands.terminal import aligned, explained, human_bytes, human_seconds, printable
from wsss.errors import UserError, listing_error
from wsss.store.artifacts import DamagedArtifactError


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.h5"), "the disk is full"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "--workspace"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "smaller batch"),
        (OSError("Can't write data (errno = 28, error message = 'No space left')"), "has room"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "run.workers=1"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "fewer run.workers"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "smaller batch"),
        (MemoryError(), "smaller batch"),
        (
            ValueError("Caught ValueError in worker.\nOriginal Traceback (x):\n  File y\nValueError: z"),
            "ValueError: z;",
        ),
        (DamagedArtifactError("a.h5: damaged"), "compute it again"),
        (UserError("fix this"), "fix this"),
        (
            ModuleNotFoundError("No module named 'x'", name="x"),
            "package x is not installed here: pip install",
        ),
        (KeyError("x"), "--debug"),
    ],
)
def test_errors_are_explained_in_few_lines(error: Exception, part: str) -> None:
    text = explained(error)
    assert part.lower() in text.lower()
    assert text.count("\n") < 3


def test_who_cannot_write_is_told_of_the_commands_own_option() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/data/labels.csv.tmp-12.345-host")
    for command, remedy in (("compare", "--out FILE"), ("init", "copy the images"), ("run", "--workspace")):
        text = explained(error, command)
        assert remedy in text
        assert "'/data/labels.csv';" in text


def test_long_reasons_are_cut_and_control_characters_shown() -> None:
    assert len(explained(ValueError("x" * 10_000))) < 600
    assert printable("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\nc\\x202ed"


def test_tables_and_figures() -> None:
    assert aligned([("a", "bb"), ("ccc", "")]) == "a    bb\n-------\nccc"
    assert [human_bytes(size) for size in (0, 1023, 1536, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
    assert [human_seconds(seconds) for seconds in (1.25, 61, 3600)] == ["1.2 s", "1 min 01 s", "60 min 00 s"]


def test_a_list_too_long_for_a_message_is_whole_in_a_file_that_is_named() -> None:
    places = [f"line {number}: no such file" for number in range(12)]
    text = explained(listing_error("labels.csv: 12 image(s) cannot be used", places, "Correct them."))
    assert "line 9" in text
    assert "line 10" not in text
    file = Path(text.rpartition("All 12: ")[2])
    assert file.read_text(encoding="utf-8").splitlines() == places
    file.unlink()
    assert "All" not in explained(listing_error("labels.csv", places[:10]))
