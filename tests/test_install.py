"""The installation: the pre-flight's one line, the virtual environment's stamps, the lock files."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = [
    "sh",
    "awk",
    "cat",
    "chmod",
    "cut",
    "df",
    "dirname",
    "env",
    "grep",
    "ls",
    "make",
    "mkdir",
    "mktemp",
    "rm",
    "rmdir",
    "sed",
    "tail",
]

# Stands for an interpreter: answers the pre-flight's question, makes "environments" whose Python
# runs PIP_DOES instead of pip, and counts the environments it made.
FAKE_PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then
    echo "$FAKE_ANSWER"
else
    echo made >>"$FAKE_COUNT"
    mkdir -p "$3/bin"
    printf '#!/bin/sh\\n%s\\n' "$PIP_DOES" >"$3/bin/python"
    chmod +x "$3/bin/python"
fi
"""


def write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Machine:
    """A machine of which everything is known: its PATH holds what is named here and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / "venv"
        self.count = folder / "count"
        bin_folder, include = folder / "bin", folder / "include"
        bin_folder.mkdir()
        include.mkdir()
        (include / "Python.h").touch()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found is None:
                pytest.skip(f"{tool} is not installed")
            (bin_folder / tool).symlink_to(found)
        write_script(bin_folder / "g++", "#!/bin/sh\nexit 0\n")
        write_script(bin_folder / "python3", FAKE_PYTHON)
        self.env = {
            "PATH": str(bin_folder),
            "FAKE_ANSWER": f"3.12 venv g++ {include}",
            "FAKE_COUNT": str(self.count),
            "PIP_DOES": "exit 0",
            "MIN_FREE_MB": "0",
        }

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def make(self, *goals: str) -> subprocess.CompletedProcess[str]:
        return self.call("make", f"VENV={self.venv}", *goals)

    def refusal(self) -> str:
        """The pre-flight's one line."""
        result = self.call("scripts/preflight.sh", str(self.venv))
        assert result.returncode != 0
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("Cannot install: ")
        return line

    def environments_made(self) -> int:
        return len(self.count.read_text().splitlines()) if self.count.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# ---- pre-flight ----


def test_preflight_accepts_and_names_the_interpreter(machine: Machine) -> None:
    result = machine.call("scripts/preflight.sh", str(machine.venv))
    assert (result.returncode, result.stdout, result.stderr) == (0, "python3\n", "")
    assert not machine.venv.exists()


def test_preflight_refuses_an_old_python(machine: Machine) -> None:
    machine.env["FAKE_ANSWER"] = "3.9"
    line = machine.refusal()
    assert "Python 3.11 or newer is needed" in line
    assert "python3 is 3.9" in line


def test_preflight_finds_a_newer_python_beside_an_old_one(machine: Machine) -> None:
    answer = machine.env["FAKE_ANSWER"]
    write_script(machine.folder / "bin" / "python3", "#!/bin/sh\necho 3.9\n")
    write_script(machine.folder / "bin" / "python3.13", "#!/bin/sh\nexit 127\n")  # a shim of nothing
    write_script(machine.folder / "bin" / "python3.12", f"#!/bin/sh\necho {answer}\n")
    result = machine.call("scripts/preflight.sh", str(machine.venv))
    assert (result.returncode, result.stdout) == (0, "python3.12\n")


def test_preflight_honours_a_named_python(machine: Machine) -> None:
    machine.env["PYTHON"] = "/nowhere/python3"
    assert "/nowhere/python3 does not run" in machine.refusal()


def test_preflight_question_works_in_this_python(machine: Machine) -> None:
    machine.env["PYTHON"] = sys.executable
    result = machine.call("scripts/preflight.sh", str(machine.venv))
    if result.returncode == 0:
        assert result.stdout == f"{sys.executable}\n"
    else:  # a Python without its headers runs the tests as well
        assert "python3-" in result.stderr


def test_preflight_refuses_a_python_without_venv(machine: Machine) -> None:
    machine.env["FAKE_ANSWER"] = "3.12 novenv g++ /nowhere"
    assert "install python3-venv" in machine.refusal()


def test_preflight_refuses_missing_headers(machine: Machine) -> None:
    machine.env["FAKE_ANSWER"] = "3.12 venv g++ /nowhere"
    assert "install python3-dev" in machine.refusal()


def test_preflight_refuses_a_missing_compiler(machine: Machine) -> None:
    (machine.folder / "bin" / "g++").unlink()
    assert "install g++" in machine.refusal()


def test_preflight_refuses_a_compiler_that_fails(machine: Machine) -> None:
    write_script(machine.folder / "bin" / "g++", "#!/bin/sh\nexit 1\n")
    assert "cannot compile" in machine.refusal()


def test_preflight_refuses_a_full_disk(machine: Machine) -> None:
    machine.env["MIN_FREE_MB"] = "999999999999"
    assert re.search(r"\d+ MB of disk are free .* 999999999999 MB are needed", machine.refusal())


def test_preflight_refuses_a_place_that_cannot_be_made(machine: Machine) -> None:
    (machine.folder / "file").touch()
    machine.venv = machine.folder / "file" / "venv"
    assert "is not a folder" in machine.refusal()


# ---- making the environment ----


def test_environment_is_made_once(machine: Machine) -> None:
    assert machine.make("venv-dev").returncode == 0
    assert (machine.venv / ".ready").exists()
    assert (machine.venv / ".ready-dev").exists()
    again = machine.make("venv-dev")
    assert again.returncode == 0
    assert "Installing" not in again.stdout
    assert machine.environments_made() == 1


def test_changed_lock_makes_it_anew(machine: Machine) -> None:
    assert machine.make("venv").returncode == 0
    lock_time = (ROOT / "requirements.txt").stat().st_mtime
    os.utime(machine.venv / ".ready", (lock_time - 10, lock_time - 10))
    assert machine.make("venv").returncode == 0
    assert machine.environments_made() == 2


def test_failing_pip_is_one_line_with_its_log(machine: Machine) -> None:
    machine.env["PIP_DOES"] = (
        "echo Collecting; echo 'ERROR: No matching distribution found for x'; echo hint; exit 1"
    )
    result = machine.make("venv")
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert "ERROR: No matching distribution found for x" in line
    log = machine.venv / "install.log"
    assert str(log) in line
    assert "Collecting" in log.read_text()


@pytest.mark.parametrize("goal", ["venv", "venv-dev"])
def test_interrupted_creation_starts_over(machine: Machine, goal: str) -> None:
    cut = "run" if goal == "venv" else "dev"
    machine.env["PIP_DOES"] = (
        f'case "$*" in *{"-dev" if cut == "dev" else "uninstall"}*) kill -9 $PPID;; esac'
    )
    assert machine.make(goal).returncode != 0
    assert not (machine.venv / ".ready-dev").exists()
    assert (machine.venv / ".ready").exists() == (cut == "dev")
    machine.env["PIP_DOES"] = "exit 0"
    assert machine.make(goal).returncode == 0
    assert machine.environments_made() == 2


def test_foreign_folder_is_left_alone(machine: Machine) -> None:
    machine.venv.mkdir()
    treasure = machine.venv / "treasure"
    treasure.touch()
    for goal in ("venv", "venv-dev"):
        result = machine.make(goal)
        assert result.returncode != 0
        assert "was not made by make" in result.stderr
        assert treasure.exists()


def test_demo_passes_arguments_on(machine: Machine) -> None:
    result = machine.make("-n", "demo", "ARGS=--set refine.preset=psa")
    command = "run_pipeline.py run --config configs/sample.toml --name sample --set refine.preset=psa"
    assert f"{machine.venv}/bin/python {command}" in result.stdout


def test_help_is_the_default_and_lists_the_commands(machine: Machine) -> None:
    result = machine.make()
    assert result.returncode == 0
    for goal in ("demo", "test", "lint", "lock", "clean"):
        assert re.search(rf"^make {goal}\b", result.stdout, re.MULTILINE)


# ---- lock files ----


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    """The packages of a lock file; every line must be a comment, `-r requirements.txt` or a pin."""
    found: dict[str, str] = {}
    for line in (ROOT / file).read_text().splitlines():
        if line.startswith("#") or (file != "requirements.txt" and line == "-r requirements.txt"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)
        assert match, f"{file}: not an exact pin: {line}"
        assert normal(match[1]) not in found, f"{file}: twice: {line}"
        found[normal(match[1])] = match[2]
    return found


def declared() -> tuple[list[str], list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"], project["optional-dependencies"]["dev"]


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return normal(match[0])


def test_every_declared_dependency_is_locked() -> None:
    runtime, development = declared()
    assert {name_of(r) for r in runtime} <= pins("requirements.txt").keys()
    assert {name_of(r) for r in development} <= pins("requirements-dev.txt").keys()
    assert not pins("requirements.txt").keys() & pins("requirements-dev.txt").keys()


def test_exact_pins_of_the_project_are_those_of_the_lock() -> None:
    exact = dict(r.split("==") for r in declared()[0] if "==" in r)
    assert {"torch", "torchvision"} <= exact.keys()
    locked = pins("requirements.txt")
    assert {name: locked[normal(name)] for name in exact} == exact


def test_development_lock_builds_on_the_runtime_lock() -> None:
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()


@pytest.mark.parametrize(
    "file", ["requirements.txt", "requirements-dev.txt", "scripts/build-requirements.txt"]
)
def test_lock_names_no_index_path_or_local_version(file: str) -> None:
    text = (ROOT / file).read_text()
    for forbidden in ("+cpu", "://", "file:", "--", " @ "):
        assert forbidden not in text
