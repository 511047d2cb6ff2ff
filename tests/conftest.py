"""One thread per test process: tiny tensors gain nothing from more, and busy machines lose a lot."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.products import Product, make_product
from wsss.runtime import interrupt

torch.set_num_threads(1)
# A busy machine is no fault, and the same program always passes or always fails.
# PYTEST_ARGS="--hypothesis-profile search" looks for new examples.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.register_profile("torture", settings.get_profile("search"), max_examples=1000)  # `make torture`
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _no_stop_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal of an earlier test must not stop this one."""
    monkeypatch.setattr(interrupt, "_requested", False)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A finished tiny run; tests leave it as it is."""
    return make_product(tmp_path_factory.mktemp("product"))
