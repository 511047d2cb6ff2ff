"""BatchNorm folded into the convolution before it: the same function of the image with a third less work on a CPU.

A trained network's BatchNorm is a fixed scale and shift per channel, so the convolution's own weights and bias can
hold it (Jacob et al., CVPR 2018, section 3.2). Which BatchNorm follows which convolution is observed, not read off
names, so that it works for any backbone, and the result is compared with the network as it was.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsss.networks import PlainNetwork

PROBE_SIDE = 64
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
    like = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, 3, PROBE_SIDE, PROBE_SIDE), generator=generator).to(like.device, like.dtype)
    with _followers() as found:
        expected = network(images)
    names = {module: name for name, module in network.named_modules()}
    result = copy.deepcopy(network)
    for norm, convolution in found.items():
        one, other = result.get_submodule(names[convolution]), result.get_submodule(names[norm])
        assert isinstance(one, nn.Conv2d)
        assert isinstance(other, nn.BatchNorm2d)
        fused = fuse_conv_bn_eval(one, other)
        _replace(result, names[convolution], fused)
        # timm's layers hold the activation that follows; torch's own hold nothing.
        _replace(result, names[norm], getattr(other, "act", nn.Identity()))
    distance = (result(images) - expected).abs().max()
    return result if distance <= TOLERANCE * expected.abs().max() else network


@contextmanager
def _followers() -> Iterator[dict[nn.Module, nn.Module]]:
    """While this is entered: the BatchNorm layers that take a convolution's very output, and these convolutions."""
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that no id comes twice
    found: dict[nn.Module, nn.Module] = {}
    calls: dict[nn.Module, int] = {}

    def after(module: nn.Module, _: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            outputs[id(output)] = module, output

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.BatchNorm2d) and inputs and id(inputs[0]) in outputs:
            found[module] = outputs[id(inputs[0])][0]

    handles = [
        nn.modules.module.register_module_forward_hook(after),
        nn.modules.module.register_module_forward_pre_hook(before),
    ]
    try:
        yield found
        for norm, convolution in list(found.items()):
            if calls[norm] > 1 or calls[convolution] > 1:  # shared: another use may want them apart
                del found[norm]
    finally:
        for handle in handles:
            handle.remove()


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
