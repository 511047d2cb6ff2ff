"""What faults are called: one to three lines that say what to do."""

import errno
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from data.images import read_image
from run_pipeline import EXIT_USER_ERROR
from stages.commands.terminal import explained, printable
from torture.fuzz.hostile import IMAGES
from torture.tiny import ROOT
from wsss.config import load_config
from wsss.errors import UserError
from wsss.store.artifacts import DamagedArtifactError


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.h5"), "the disk is full"),
        (
            OSError("Can't write data (file write failed: errno = 28, error message = 'No space')"),
            "disk is full",
        ),
        (RuntimeError("Unable to flush (file write failed: errno = 28, x)"), "disk is full"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "--workspace"),
        (BrokenProcessPool("A process in the process pool was terminated abruptly"), "run.workers=1"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "run.workers=1"),
        (MemoryError(), "smaller batch"),
        (
            ValueError("Caught ValueError in worker.\nOriginal Traceback (x):\n  File y\nValueError: z"),
            "ValueError: z;",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "smaller batch"),
        (RuntimeError("could not create a primitive"), "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "not enough memory"),
        (DamagedArtifactError("a.h5: damaged"), "compute it anew"),
        (UserError("mend this"), "mend this"),
        (KeyError("x"), "--debug"),
    ],
)
def test_faults_are_explained_in_few_lines(error: Exception, part: str) -> None:
    text = explained(error)
    assert part.lower() in text.lower()
    assert text.count("\n") < 3


def test_long_reasons_are_cut_and_control_characters_shown() -> None:
    assert len(explained(ValueError("x" * 10_000))) < 600
    assert printable("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\nc\\x202ed"


def test_postscript_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(IMAGES[6])
    with pytest.raises(UserError, match="PostScript is a program"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "seed = " + "9" * 5000, '[data]\nroot = "a\\u0000b"\n']
)
def test_toml_beyond_all_bounds_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UserError):
        load_config(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("surroundings", "status", "part"),
    [
        ({"PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"}, 0, "\\u0416"),
        ({"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, EXIT_USER_ERROR, "PYTHONUTF8=1"),
    ],
)
def test_what_a_terminal_cannot_show_is_escaped_and_other_file_names_are_refused(
    tmp_path: Path, surroundings: dict[str, str], status: int, part: str
) -> None:
    (tmp_path / "runs").mkdir()
    command = [
        sys.executable,
        str(ROOT / "run_pipeline.py"),
        "config",
        "--set",
        "data.root=\N{GRINNING FACE} \u0416",
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **surroundings}, timeout=300
    )
    assert ended.returncode == status, ended.stderr
    assert part in ended.stdout + ended.stderr
    assert "a fault of this program" not in ended.stderr
