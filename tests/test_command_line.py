"""The command line as a user meets it: help, errors in few lines, exit codes, interruption, start-up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from run_pipeline import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from stages import STAGE_NAMES
from tests.pipelines import SETTINGS
from tests.trees import make_folder_tree

ROOT = Path(__file__).parent.parent


def arguments(data_root: str, workspace: Path, *extra: str) -> list[str]:
    settings = [part for setting in [f"data.root={data_root}", *SETTINGS] for part in ("--set", setting)]
    return ["--workspace", str(workspace), "--name", "tiny", *settings, *extra]


def test_help_of_every_command_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["run", "stage", "status", "prune", "config", "tags", "check", "init"]
    names += ["report", "compare", "export", "predict", "ablate"]
    for command in ([], *([name] for name in names)):
        with pytest.raises(SystemExit) as caught:
            main([*command, "--help"])
        assert caught.value.code == 0
        assert "example: run_pipeline.py" in capsys.readouterr().out


def test_help_and_status_do_not_import_torch(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=1)
    text = "import sys, run_pipeline; run_pipeline.main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", text, "status", *arguments(data.root, tmp_path / "ws")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(STAGE_NAMES)
    assert lines[-1] == "False"


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (["--set", "refine.preset=best"], "refine.preset = 'best'"),
        (["--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (["--set", "data.root=/nowhere"], "/nowhere"),
        (["--name", "../x"], "--name"),
        (["--set", "classify.backbone=resnet_18"], "resnet_18"),
        (["--set", "run.device=cuda:9"], "run.device = 'cuda:9'"),
        (["--set", "classify.exits=[9]"], "classify.exits"),
        (["--set", "segment.exits=[9]"], "segment.exits"),
        (["--set", "segment.backbone=resnet_18"], "resnet_18"),
        (["--set", "segment.frozen_blocks=9"], "segment.frozen_blocks = 9"),
    ],
)
def test_mistakes_end_in_a_short_message_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], part: str
) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=1)
    assert main(["run", *arguments(data.root, tmp_path / "ws", *extra)]) == EXIT_USER_ERROR
    messages = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("checking")]
    text = "\n".join(messages[-3:])
    assert part in text
    assert "error: " in text
    assert "Traceback" not in text
    assert not list((tmp_path / "ws").rglob("*.h5"))  # found out before anything was computed


def test_debug_shows_the_traceback_of_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--workspace", str(tmp_path), "--set", "refine.preset=best"]
    assert main([*command, "--debug"]) == EXIT_USER_ERROR
    assert "Traceback" in capsys.readouterr().err


def test_without_any_configuration_it_says_what_to_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--workspace", str(tmp_path)]) == EXIT_USER_ERROR
    assert "data.root is not set" in capsys.readouterr().err


def test_config_prints_every_key_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--set", "refine.preset=psa"]) == 0
    text = capsys.readouterr().out
    assert 'preset = "psa"' in text
    file = tmp_path / "c.toml"
    file.write_text(text, encoding="utf-8")
    assert main(["config", "--config", str(file)]) == 0
    assert capsys.readouterr().out == text


def test_a_damaged_array_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=0)
    assert main(["stage", "classify", *arguments(data.root, tmp_path / "ws")]) == 0
    victim = next((tmp_path / "ws" / "artifacts" / "classify").glob("*.h5"))
    with h5py.File(victim, "r+") as file:
        offset = file["network/head.classifier.weight"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(victim.read_bytes())
    damaged[offset] ^= 1
    victim.write_bytes(bytes(damaged))
    assert main(["stage", "cams", *arguments(data.root, tmp_path / "ws")]) == EXIT_USER_ERROR
    told = capsys.readouterr()
    assert victim.name in told.out
    assert "set aside" in told.out
    assert "stage cams needs the result of classify" in told.err
    assert len(list(victim.parent.glob("*.damaged-*"))) == 1


def test_prune_of_a_missing_workspace_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "--workspace", str(tmp_path / "no")]) == EXIT_USER_ERROR
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_and_ends_in_the_same_bits(tmp_path: Path, number: signal.Signals) -> None:
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
    assert b"the same command goes on from here" in errors
    assert len(list((tmp_path / "a").rglob("*.checkpoint"))) == 1
    assert main(["stage", "classify", *arguments(data.root, tmp_path / "a", *longer)]) == 0
    assert main(["stage", "classify", *arguments(data.root, tmp_path / "b", *longer)]) == 0
    files = [next((tmp_path / place / "artifacts" / "classify").glob("*.h5")) for place in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list((tmp_path / "a").rglob("*.checkpoint"))
