"""BatchNorm folded into the convolution before it: the same function of the image with a third less work on a CPU.

A trained network's BatchNorm is a fixed scale and shift per channel, so the convolution's own weights and bias can
hold it (Jacob et al., CVPR 2018, section 3.2). The result is compared with the network as it was.
"""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsss.networks import PlainNetwork
from wsss.tracing import Trace, replace_module, traced

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


def _pairs(trace: Trace) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions and BatchNorm layers that take their output, both called once: other uses may want them apart."""
    return [
        (module, taker)
        for module, takers in trace.takers.items()
        for taker in takers
        if isinstance(module, nn.Conv2d) and isinstance(taker, nn.BatchNorm2d)
        if trace.calls[module] == trace.calls[taker] == 1
    ]
