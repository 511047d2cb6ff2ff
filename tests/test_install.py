"""The installation as a user meets it: the commands of `make`, and lock files that agree with pyproject.toml."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.txt", "requirements-dev.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    """The packages of a lock file; every line must be a comment, `-r requirements.txt` or a pin."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("#") and line != "-r requirements.txt"]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in kept]
    assert all(found), f"{file}: not an exact pin: {kept[found.index(None)]}"
    named = {normal(match[1]): match[2] for match in found if match}
    assert len(named) == len(kept), f"{file}: a package twice"
    return named


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return normal(match[0])


def test_make_alone_lists_its_commands_and_those_of_the_readme_exist() -> None:
    listed = make()
    assert listed.returncode == 0, listed.stderr
    commands = {"demo", "test", "lint", "torture", "bench", "lock", "clean"}
    assert commands <= set(re.findall(r"^make ([\w-]+)", listed.stdout, re.MULTILINE))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands | set(re.findall(r"(?:^|`)make ([\w-]+)", readme, re.MULTILINE)) <= set(rules)


def test_demo_passes_arguments_on() -> None:
    shown = make("-n", "demo", "ARGS=--set refine.preset=psa")
    assert (
        "run_pipeline.py run --config configs/sample.toml --name sample --set refine.preset=psa"
        in shown.stdout
    )


def test_preflight_says_which_python_to_use_or_what_is_missing(tmp_path: Path) -> None:
    command = ["sh", "scripts/preflight.sh", str(tmp_path / "venv")]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    if result.returncode == 0:
        assert result.stdout == f"{sys.executable}\n"
    else:  # no compiler, no headers, too little room
        (line,) = result.stderr.splitlines()
        assert line.startswith("Cannot install: ")
    assert not (tmp_path / "venv").exists()


def test_every_declared_dependency_is_locked() -> None:
    assert {name_of(text) for text in PROJECT["dependencies"]} <= pins(LOCKS[0]).keys()
    assert {name_of(text) for text in PROJECT["optional-dependencies"]["dev"]} <= pins(LOCKS[1]).keys()
    assert not pins(LOCKS[0]).keys() & pins(LOCKS[1]).keys()
    assert "-r requirements.txt" in (ROOT / LOCKS[1]).read_text(encoding="utf-8").splitlines()


def test_exact_pins_of_the_project_are_those_of_the_lock() -> None:
    exact = dict(text.split("==") for text in PROJECT["dependencies"] if "==" in text)
    assert {"torch", "torchvision"} <= exact.keys()
    assert {name: pins(LOCKS[0])[normal(name)] for name in exact} == exact


@pytest.mark.parametrize("file", [*LOCKS, "scripts/build-requirements.txt"])
def test_a_lock_names_no_index_path_or_local_version(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    for forbidden in ("+cpu", "://", "file:", "--", " @ "):
        assert forbidden not in text
