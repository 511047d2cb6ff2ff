"""The same artifacts, bit by bit, whatever surrounds the run: workers, folder, locale, time zone, order of hashes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines import ROOT, SETTINGS, hashes
from tests.trees import make_folder_tree

ELSEWHERE = {"LC_ALL": "C", "LANG": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "7", "COLUMNS": "40"}
HERE = {"LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "America/Lima", "PYTHONHASHSEED": "1"}


def artifacts(workspace: Path, root: str, folder: Path, surroundings: dict[str, str], workers: int) -> None:
    command = [
        sys.executable,
        str(ROOT / "run_pipeline.py"),
        "run",
        "--name",
        "r",
        "--workspace",
        str(workspace),
    ]
    for setting in (f"data.root={root}", *SETTINGS, f"run.workers={workers}"):
        command += ["--set", setting]
    environment = {**os.environ, **surroundings}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=600)


@pytest.mark.slow
def test_surroundings_change_no_bit(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_folder_tree(root, n_train=4, n_val=2)
    for place in ("images", "masks"):  # a name that needs more than ASCII
        old = next(path for path in (root / place).iterdir() if path.stem == "train_000")
        old.rename(old.with_stem("trän 😀"))
    rows = (root / "labels.csv").read_text(encoding="utf-8")
    (root / "labels.csv").write_text(rows.replace("train_000", "trän 😀"), encoding="utf-8")
    artifacts(tmp_path / "a", str(root), ROOT, HERE, workers=0)
    artifacts(tmp_path / "b", "data", tmp_path, ELSEWHERE, workers=2)
    assert len(hashes(tmp_path / "a")) == 4
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
