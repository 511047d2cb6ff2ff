"""BatchNorm folded into the convolution before it: the same function of the image with a third less work on a CPU.

A trained network's BatchNorm is a fixed scale and shift per channel, so the convolution's own weights and bias can
hold it (Jacob et al., CVPR 2018, section 3.2). The result is compared with the network as it was.

Which layer takes which layer's output: observed in a network at work, not read off names, so for any backbone.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsss.model.multi_exit import PlainNetwork

TOLERANCE = 1e-3
"""Largest difference of the class maps, in float32, as a share of their largest value."""


@torch.no_grad()
def folded(network: PlainNetwork) -> PlainNetwork:
    """A copy without BatchNorm wherever it follows a convolution, for inference alone.

    Args:
        network: in evaluation mode, on the CPU or another device.

    Returns:
        The copy; where it does not compute what the network does, which a trial shows, the network itself.
    """
    trace = traced(network)
    result = copy.deepcopy(network)
    for convolution, norm in _pairs(trace):
        one, other = (result.get_submodule(trace.names[module]) for module in (convolution, norm))
        assert isinstance(one, nn.Conv2d)
        assert isinstance(other, nn.BatchNorm2d)
        replace_module(result, trace.names[convolution], fuse_conv_bn_eval(one, other))
        # timm's layers hold the activation that follows; torch's own hold nothing.
        replace_module(result, trace.names[norm], getattr(other, "act", nn.Identity()))
    distance = (result(trace.images) - trace.class_maps).abs().max()
    return result if distance <= TOLERANCE * trace.class_maps.abs().max() else network


def _pairs(trace: "Trace") -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions and BatchNorm layers that take their output, both called once: other uses may want them apart."""
    return [
        (module, taker)
        for module, takers in trace.takers.items()
        for taker in takers
        if isinstance(module, nn.Conv2d) and isinstance(taker, nn.BatchNorm2d)
        if trace.calls[module] == trace.calls[taker] == 1
    ]


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
def _observing(trace: "Trace") -> Iterator[None]:
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
