"""Several processes: the result of one, within rounding; a dying one is noticed; each writes its own shards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def torchrun(processes: int, *command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*launcher, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_sr_f": 5.0},
        {"structure": "ushape", "sr_axis": "class", "optimizer": "adamw"},
        {"sr_maps": "features", "mea": False},
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
    assert len(losses[0]) == 6
    assert {"seg", "cls", "sr_f", "sr_l"} <= set(losses[0][-1])
    for one, two in zip(*losses, strict=True):
        assert one == pytest.approx(two, rel=2e-4, abs=2e-6)
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-3, atol=1e-5), name
