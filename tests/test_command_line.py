"""The command line as a user meets it: help, errors in few lines, exit statuses, interruption, start-up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import run_pipeline
from run_pipeline import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from stages import STAGE_NAMES
from tests.pipelines import SETTINGS
from tests.trees import make_folder_tree

ROOT = Path(__file__).parent.parent
COMMANDS = [
    *("run", "stage", "status", "config", "init", "check", "tags"),
    *("report", "compare", "ablate", "predict", "export", "import", "prune"),
]


def arguments(data_root: str, workspace: Path, *extra: str) -> list[str]:
    settings = [part for setting in [f"data.root={data_root}", *SETTINGS] for part in ("--set", setting)]
    return ["--workspace", str(workspace), "--name", "tiny", *settings, *extra]


def program(*given: str, **surroundings: str) -> "subprocess.CompletedProcess[str]":
    """The program in a process of its own."""
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *given]
    environment = {**os.environ, **surroundings}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_help_of_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert main([command, "-h"]) == 0
        text = capsys.readouterr().out
        assert f"Example: run_pipeline.py {command}" in text
        assert "--debug" in text
        assert f"\n  {command} " in overview
    assert "..." not in overview.split("Commands:")[1], "a line of the overview is cut"


def test_help_stays_readable_in_a_narrow_terminal_without_unicode() -> None:
    shown = program("predict", "--help", COLUMNS="40", LC_ALL="C", PYTHONUTF8="1", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.isascii()
    assert max(map(len, shown.stdout.splitlines())) <= 60
    assert "--no-flip" in shown.stdout


def test_completion_names_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        shown = program(
            **{"_RUN_PIPELINE.PY_COMPLETE": "complete_bash"},
            COMP_WORDS=words,
            COMP_CWORD=str(words.count(" ")),
        )
        return shown.stdout.split()

    assert completed("run_pipeline.py st") == ["stage", "status"]
    assert completed("run_pipeline.py stage c") == ["classify", "cams"]
    assert completed("run_pipeline.py predict --no-") == ["--no-flip"]


def test_neither_help_nor_status_imports_torch(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=1)
    text = (
        "import sys, run_pipeline; run_pipeline.main(sys.argv[1:]); print({'torch', 'h5py'} & {*sys.modules})"
    )
    for given, wanted in (
        (["run", "--help"], "set()"),
        (["status", *arguments(data.root, tmp_path / "ws")], "{'h5py'}"),
    ):
        command = [sys.executable, "-c", text, *given]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == wanted
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == list(STAGE_NAMES)


def test_the_stages_of_the_command_line_are_those_of_the_pipeline() -> None:
    assert get_args(get_type_hints(run_pipeline.stage)["stage"]) == STAGE_NAMES


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ([], "Missing command"),
        (["rum"], "Did you mean 'run'?"),
        (["run", "--workspce", "x"], "No such option: --workspce (Possible options: --workspace)"),
        (["compare", "a", "--workspce", "x", "b"], "No such option: --workspce"),
        (["run", "--set"], "'--set' requires an argument"),
        (["run", "extra"], "unexpected extra argument(s) (extra)"),
        (["stage"], "Missing argument 'NAME'. Choose from: classify, cams, refine, segment"),
        (["stage", "cam"], "'cam' is not one of 'classify', 'cams', 'refine', 'segment'"),
        (["export", "r", "--format", "cocoa"], "'cocoa' is not one of 'voc', 'coco'"),
        (["predict", "r", "x.jpg"], "Missing option '--out'"),
        (["predict", "r", "x.jpg", "--out", "o", "--max-side", "-3"], "'--max-side'"),
        (["predict", "r", "x.jpg", "--out", "o", "--scales", "0.5,9"], "--scales '0.5,9': expected numbers"),
        (["compare", "a", "b", "--resamples", "9"], "greater than or equal to 100"),
        (["compare", "a", "b", "--fail-if-worse", "-1"], "greater than or equal to 0"),
        (["ablate", "--seeds", "a"], "--seeds 'a': expected whole numbers"),
        (["ablate", "--variants", "a,,b"], "--variants 'a,,b': expected names"),
        (["run", "--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["run"], "data.root is not set"),
        (["tags"], "data.root is not set"),
        (["prune", "--workspace", "no"], "no such folder"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == EXIT_USER_ERROR
    told = capsys.readouterr()
    assert not told.out
    (line,) = told.err.splitlines()
    assert line.startswith("error: ")
    assert part in line


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("refine.preset=best", "refine.preset = 'best'"),
        ("data.root=/nowhere", "/nowhere"),
        ("classify.backbone=resnet_18", "resnet_18"),
        ("run.device=cuda:9", "run.device = 'cuda:9'"),
        ("classify.exits=[9]", "classify.exits"),
        ("segment.exits=[9]", "segment.exits"),
        ("segment.backbone=resnet_18", "resnet_18"),
        ("segment.frozen_blocks=9", "segment.frozen_blocks = 9"),
    ],
)
def test_a_wrong_setting_is_found_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, part: str
) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=1)
    given = ["run", *arguments(data.root, tmp_path / "ws", "--set", setting)]
    assert main(given) == EXIT_USER_ERROR
    text = capsys.readouterr().err
    message = text[text.index("error: ") :]
    assert part in message
    assert len(message.splitlines()) <= 3
    assert not list((tmp_path / "ws").rglob("*.h5"))


def test_debug_shows_the_traceback_of_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["run", "--workspace", str(tmp_path), "--set", "refine.preset=best"]
    assert main([*given, "--debug"]) == EXIT_USER_ERROR
    assert "Traceback" in capsys.readouterr().err


def test_config_prints_every_key_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--set", "refine.preset=psa"]) == 0
    text = capsys.readouterr().out
    assert 'preset = "psa"' in text
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    assert main(["config", "--config", str(tmp_path / "c.toml")]) == 0
    assert capsys.readouterr().out == text


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    shown = program(
        "config", "--set", "data.root=\N{GRINNING FACE} \u0416", PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8"
    )
    assert shown.returncode == 0, shown.stderr
    assert "\\u0416" in shown.stdout


def test_a_locale_with_other_file_names_is_refused() -> None:
    shown = program("config", LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert shown.returncode == EXIT_USER_ERROR
    assert "PYTHONUTF8=1" in shown.stderr


def test_windows_is_sent_to_wsl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["status"]) == EXIT_USER_ERROR
    assert "wsl --install" in capsys.readouterr().err


def test_only_the_leader_carries_out_what_is_not_shared() -> None:
    shown = [program("config", RANK=rank, WORLD_SIZE="2", LOCAL_RANK=rank) for rank in ("0", "1")]
    assert [done.returncode for done in shown] == [0, 0]
    assert "[refine]" in shown[0].stdout
    assert shown[1].stdout == ""


@pytest.mark.slow
def test_a_damaged_result_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=0)
    assert main(["stage", "classify", *arguments(data.root, tmp_path / "ws")]) == 0
    victim = next((tmp_path / "ws" / "artifacts" / "classify").glob("*.h5"))
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(bytes(damaged))
    assert main(["stage", "cams", *arguments(data.root, tmp_path / "ws")]) == EXIT_USER_ERROR
    told = capsys.readouterr()
    assert victim.name in told.out
    assert "set aside" in told.out
    assert "stage cams needs the result of classify" in told.err
    assert len(list(victim.parent.glob("*.damaged-*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_and_ends_in_the_same_bits(tmp_path: Path, number: signal.Signals) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=6, n_val=2)
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "stage", "classify"]
    longer = ["--set", "classify.epochs=12"]  # seconds in which to be stopped
    stopped = subprocess.Popen(
        [*command, *arguments(data.root, tmp_path / "a", *longer)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = tmp_path / "a" / "tiny" / "log.jsonl"
    while not (log.exists() and '"epoch": 1' in log.read_text()):
        assert stopped.poll() is None
        time.sleep(0.02)
    os.kill(stopped.pid, number)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == EXIT_INTERRUPTED
    assert b"rerun the same command to resume" in errors
    assert len(list((tmp_path / "a").rglob("*.checkpoint"))) == 1
    assert main(["stage", "classify", *arguments(data.root, tmp_path / "a", *longer)]) == 0
    assert main(["stage", "classify", *arguments(data.root, tmp_path / "b", *longer)]) == 0
    files = [next((tmp_path / place / "artifacts" / "classify").glob("*.h5")) for place in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list((tmp_path / "a").rglob("*.checkpoint"))
