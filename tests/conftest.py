"""One thread per test process: tiny tensors gain nothing from more, and busy machines lose a lot."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

import pytest
import torch

from wsss import interrupt

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_stop_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal of an earlier test must not stop this one."""
    monkeypatch.setattr(interrupt, "_requested", False)
