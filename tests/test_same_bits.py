"""The same artifacts, bit by bit, whatever surrounds the run: workers, folder, locale, time zone, order of hashes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.pipelines import ROOT, SETTINGS, hashes
from tests.trees import make_folder_tree

ELSEWHERE = {"LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7", "COLUMNS": "40"}
HERE = {"LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "America/Lima", "PYTHONHASHSEED": "1"}
START = """
import locale, sys
locale.setlocale(locale.LC_ALL, "")
import run_pipeline
sys.exit(run_pipeline.main())
"""
"""The program leaves the locale of numbers alone; here it is in force all the same, as a library could have it."""


def german(folder: Path) -> dict[str, str]:
    """Surroundings with a decimal comma and another order of letters; empty where the machine has none."""
    subprocess.run(
        ["sh", "-c", 'localedef -i de_DE -f UTF-8 "$1/de_DE.UTF-8"', "sh", str(folder)], capture_output=True
    )
    shows = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.localeconv()['decimal_point'])"
    for place in ({}, {"LOCPATH": str(folder)}):
        surroundings = {"LC_ALL": "de_DE.UTF-8", **place}
        shown = subprocess.run(
            [sys.executable, "-c", shows], env={**os.environ, **surroundings}, capture_output=True, text=True
        )
        if shown.stdout.strip() == ",":
            return surroundings
    return {}


def artifacts(
    workspace: Path, root: str, folder: Path, surroundings: dict[str, str], workers: int
) -> dict[str, str]:
    settings = [f"data.root={root}", *SETTINGS, f"run.workers={workers}"]
    command = [sys.executable, "-c", START, "run", "--name", "r", "--workspace", str(workspace)]
    for setting in settings:
        command += ["--set", setting]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **surroundings}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=600)
    return hashes(workspace)


def test_surroundings_change_no_bit(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_folder_tree(root, n_train=4, n_val=2)
    for place in ("images", "masks"):  # a name that needs more than ASCII
        old = next(path for path in (root / place).iterdir() if path.stem == "train_000")
        old.rename(old.with_stem("trän 😀"))
    rows = (root / "labels.csv").read_text(encoding="utf-8")
    (root / "labels.csv").write_text(rows.replace("train_000", "trän 😀"), encoding="utf-8")
    (tmp_path / "locales").mkdir()
    here = HERE | german(tmp_path / "locales")
    first = artifacts(tmp_path / "a", str(root), ROOT, here, workers=1)
    second = artifacts(tmp_path / "b", "data", tmp_path, ELSEWHERE, workers=4)
    assert len(first) == 4
    assert first == second
