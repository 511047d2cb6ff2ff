"""Several processes: the result of one, within rounding; a dying one is noticed; each writes its own shards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from run_pipeline import main
from stages.workspace import Workspace
from tests.pipelines import request
from tests.trees import make_folder_tree
from wsss.store.artifacts import Artifact

ROOT = Path(__file__).parent.parent


def torchrun(processes: int, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    return subprocess.run(
        [*launcher, *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"sr_axis": "space", "weight_sr_f": 5.0, "sr_bar": 0.05},
        {"structure": "ushape", "optimizer": "adamw", "weight_sr_p": 1.0, "weight_detail": 1.0},
        {"sr_maps": "features", "sr_f_trust": "label", "loss_scales": [0.5]},
    ],
    ids=["space", "ushape", "features"],
)
def test_two_processes_train_as_one(tmp_path: Path, changes: dict[str, object]) -> None:
    losses, weights = [], []
    for count in (1, 2):
        out = tmp_path / str(count)
        out.mkdir()
        done = torchrun(count, "tests/torchrun_training.py", str(out), json.dumps(changes))
        assert done.returncode == 0, done.stderr
        losses.append(json.loads((out / "losses.json").read_text()))
        weights.append(torch.load(out / "weights.pt", weights_only=True))
    assert sum("epoch" in event for event in losses[0]) == 6
    assert {"seg", "cls", "sr_f", "sr_l"} <= set(losses[0][-1])
    for one, two in zip(*losses, strict=True):
        assert one == pytest.approx(two, rel=2e-4, abs=2e-6)
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-3, atol=1e-5), name


def arrays(workspace: Path, stage: str) -> dict[str, torch.Tensor]:
    """Every per-image array of a stage's only artifact."""
    (path,) = (workspace / "artifacts" / stage).glob("*.h5")
    artifact = Artifact(path)
    names = {"cams": ("maps", "confidence"), "refine": ("masks", "labels"), "segment": ("predictions",)}[
        stage
    ]
    found = {
        f"{name}/{image}": torch.from_numpy(artifact.read(image, name))
        for image in artifact.ids
        for name in names
    }
    artifact.close()
    return found


def test_a_pipeline_of_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = make_folder_tree(tmp_path / "data", n_train=6, n_val=3)
    shared = [
        f"--set={text}" for text in [*request(data, tmp_path).overrides, "segment.test_scales=[1.0, 0.5]"]
    ]
    both = ["run", "--name=tiny", *shared]
    assert main([*both, f"--workspace={tmp_path / 'one'}"]) == 0
    done = torchrun(2, "run_pipeline.py", *both, f"--workspace={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation images") == 1  # the leader's words alone
    assert "pictures:" in done.stdout
    for stage in ("cams", "refine", "segment"):
        one, two = arrays(tmp_path / "one", stage), arrays(tmp_path / "two", stage)
        assert one.keys() == two.keys()
        different = sum(int((one[key].float() - two[key].float()).abs().gt(0.02).sum()) for key in one)
        assert different <= 0.01 * sum(value.numel() for value in one.values())
    reports = [json.loads((tmp_path / name / "tiny" / "report.json").read_text()) for name in ("one", "two")]
    assert reports[0]["refine.miou"] == pytest.approx(reports[1]["refine.miou"], abs=0.02)
    leftovers = [path.name for path in (tmp_path / "two" / "artifacts").rglob("*") if "parts" in path.name]
    assert not leftovers
    again = torchrun(2, "run_pipeline.py", *both, f"--workspace={tmp_path / 'two'}")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(": cached") == 4
    masks = tmp_path / "masks"
    photographs = [
        "predict",
        "tiny",
        f"{data.root}/images",
        "--out",
        str(masks),
        "--workspace",
        str(tmp_path / "two"),
    ]
    predicted = torchrun(2, "run_pipeline.py", *photographs)
    assert predicted.returncode == 0, predicted.stderr
    assert "9 predicted, 0 there already, 0 failed" in predicted.stdout
    assert len(list(masks.rglob("*.png"))) == 9


def test_a_batch_too_small_for_the_processes_is_refused(tmp_path: Path) -> None:
    done = torchrun(2, "tests/torchrun_training.py", str(tmp_path), json.dumps({"batch": 1}))
    assert done.returncode != 0
    assert "segment.batch = 1 for 2 processes" in done.stderr


def test_a_dying_process_ends_the_others_and_loses_nothing(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=6, n_val=3)
    shared = [f"--set={text}" for text in request(data, tmp_path).overrides]
    command = ["run_pipeline.py", "run", "--name=tiny", f"--workspace={tmp_path / 'ws'}", *shared]
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os, runpy, signal, sys\n"
        "import stages.segment as segment\n"
        "if os.environ['RANK'] == '1':\n"
        "    segment.fit = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = torchrun(2, str(killer), *command)
    assert done.returncode != 0
    assert "another process has ended" in done.stderr or "Signal 9" in done.stderr
    files = sorted(path.parent.name for path in (tmp_path / "ws" / "artifacts").glob("*/*.h5"))
    assert files == ["cams", "classify", "refine"]
    again = torchrun(2, *command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(": cached") == 3
    assert Workspace(tmp_path / "ws").run("tiny").record()["stages"].keys() >= {"segment"}
