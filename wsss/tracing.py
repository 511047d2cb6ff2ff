"""Which layer takes which layer's output: observed in a network at work, not read off names, so for any backbone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wsss.networks import PlainNetwork

PROBE_SIDE = 64


@dataclass
class Trace:
    """What was seen while a network computed the class maps of one square image of noise.

    Attributes:
        images: (1, 3, 64, 64) in [0, 1], the image.
        class_maps: what the network makes of it.
        names: of its modules.
        takers: of a layer (a module without parts), the modules that were given its very output, in their order. What
            is done with it outside modules is not seen.
        calls: how often a module was called.
        strides: of a module that is given maps, the pixels per cell.
    """

    images: Tensor
    class_maps: Tensor
    names: dict[nn.Module, str]
    takers: dict[nn.Module, list[nn.Module]] = field(default_factory=dict)
    calls: dict[nn.Module, int] = field(default_factory=dict)
    strides: dict[nn.Module, int] = field(default_factory=dict)


@torch.no_grad()
def traced(network: PlainNetwork) -> Trace:
    """Observe a network in evaluation mode, on any device."""
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, 3, PROBE_SIDE, PROBE_SIDE), generator=generator).to(like.device, like.dtype)
    trace = Trace(images, images, {module: name for name, module in network.named_modules()})
    with _observing(trace):
        trace.class_maps = network(images)
    return trace


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put another module in the place of the one of this name."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)


@contextmanager
def _observing(trace: Trace) -> Iterator[None]:
    makers: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that no id comes twice

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        if inputs[0].ndim == trace.images.ndim:
            trace.strides[module] = round(PROBE_SIDE / inputs[0].shape[2])
        if id(inputs[0]) in makers:
            trace.takers.setdefault(makers[id(inputs[0])][0], []).append(module)

    def after(module: nn.Module, _: Any, output: Any) -> None:
        trace.calls[module] = trace.calls.get(module, 0) + 1
        if isinstance(output, Tensor) and not any(module.children()):
            makers[id(output)] = module, output

    handles = [
        nn.modules.module.register_module_forward_hook(after),
        nn.modules.module.register_module_forward_pre_hook(before),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
