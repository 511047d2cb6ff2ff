"""The command line has torch's threads wait briefly, unless its user has chosen otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsss.threads import SPINS, wait_briefly

_COMMAND = """
import os, sys
import run_pipeline
assert "torch" not in sys.modules, "OpenMP has read its settings by then"
run_pipeline.main(["config", "--config", "configs/sample.toml"])
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ({}, f"{SPINS} None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_the_command_line_sets_it_before_torch_is_there(chosen: dict[str, str], left: str) -> None:
    free = {
        key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND],
        env=free | chosen,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == left


def test_openmp_understands_it() -> None:
    environment: dict[str, str] = {}
    wait_briefly(environment)
    done = subprocess.run(
        [sys.executable, "-c", "import torch"],
        env=os.environ | environment | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch uses another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr
