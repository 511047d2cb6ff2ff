"""``run.compile``: the same training within rounding, and the plain network where compiling fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.networks import tiny_multi_exit
from tests.test_train import job, weights
from wsss.compiling import compiled
from wsss.train import train

CPU = torch.device("cpu")


def _compiler(monkeypatch: pytest.MonkeyPatch, backend: Callable[..., Any]) -> None:
    """The real front end, but no C++ compiler behind it: that would take a minute."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **more: real(network, backend=backend, **more))


def _trained(folder: Path, *, compile: bool) -> dict[str, torch.Tensor]:
    network = tiny_multi_exit(2)
    train(network, job(folder, compile=compile), device=CPU, precision=torch.float32)
    return weights(network)


def test_training_is_the_same_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    plain = _trained(tmp_path / "plain", compile=False)
    _compiler(monkeypatch, backend)
    quick = _trained(tmp_path / "quick", compile=True)
    assert graphs
    assert "not possible" not in capsys.readouterr().out
    assert plain.keys() == quick.keys()
    for name, value in plain.items():
        torch.testing.assert_close(quick[name], value)


def test_it_goes_on_without_where_compiling_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def backend(*_: Any) -> Callable[..., Any]:
        calls.append(1)
        raise RuntimeError("no C++ compiler")

    plain = _trained(tmp_path / "plain", compile=False)
    _compiler(monkeypatch, backend)
    kept = _trained(tmp_path / "kept", compile=True)
    said = capsys.readouterr().out
    assert len(calls) == 1
    assert said.count("run.compile: not possible here, goes on without") == 1
    assert "no C++ compiler" in said
    for name, value in plain.items():
        assert torch.equal(kept[name], value)


def test_an_error_of_the_network_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _compiler(monkeypatch, lambda graph, _: graph.forward)
    with pytest.raises(RuntimeError, match="must match the size"):
        compiled(tiny_multi_exit(2))(torch.rand(1, 5, 32, 32))
