"""Traces of networks: who takes whose output, and at which stride."""

import torch
from torch import Tensor, nn

from tests.networks import tiny_plain
from wsss.model.folding import replace_module, traced


class _Twice(nn.Module):
    """One layer's output goes to two others, one layer is called twice, and a sum is nobody's output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.last = nn.Sequential(nn.Conv2d(4, 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        shared = self.act(self.first(images))
        return self.last(self.left(shared) + self.right(self.right(shared)))  # type: ignore[no-any-return]


def test_who_takes_whose_output() -> None:
    network = _Twice().eval()
    trace = traced(network)  # type: ignore[arg-type]
    assert trace.takers == {
        network.first: [network.act],
        network.act: [network.left, network.right],
        network.right: [network.right],
    }
    assert trace.calls[network.right] == 2
    assert trace.calls[network.first] == 1
    assert trace.names[network.last[0]] == "last.0"


def test_strides_and_class_maps() -> None:
    network = tiny_plain(3).eval()
    trace = traced(network)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [trace.strides[each] for each in convolutions] == [1, 2, 4, 8, 16]
    with torch.no_grad():
        torch.testing.assert_close(trace.class_maps, network(trace.images), rtol=0, atol=0)


def test_nothing_watches_afterwards() -> None:
    network = tiny_plain(3).eval()
    trace = traced(network)
    with torch.no_grad():
        network(trace.images)
    assert set(trace.calls.values()) == {1}


def test_a_module_is_replaced_by_its_name() -> None:
    network = tiny_plain(3)
    other = nn.Identity()
    replace_module(network, "backbone.features.blocks.1.2", other)
    assert network.get_submodule("backbone.features.blocks.1.2") is other
