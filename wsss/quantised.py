"""Convolutions in 8-bit integers, for inference on processors that multiply these four times as quickly as float32.

Weights are quantised once, symmetrically, each output channel with its own step; what goes into a convolution with
one step for all of it, found as it comes, so that nothing is calibrated (Krishnamoorthi, arXiv:1806.08342, sections
3.1 and 3.2; the arithmetic: Jacob et al., CVPR 2018, section 2). Between two convolutions with a ReLU6 in between the
numbers stay integers, in steps of 6/255. Shallow layers, whose errors the whole network would carry on, stay in
float32, and so do convolutions that cost less than it takes to make integers, and everything else: residual connections
add up floats.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from wsss.model.folding import PROBE_SIDE, Trace, replace_module, traced
from wsss.model.multi_exit import PlainNetwork
from wsss.same_convolution import SAME_CONVOLUTIONS, same_padding

CLIP = 6.0
"""Where ReLU6 ends."""
LEVELS = 255
SHALLOW = 4
"""Strides below which a convolution's input is left in float32."""
PACKED = 8
"""Sizes of input for which a layer keeps its weights in the order that suits them: four scales, upright and across."""
WORTHWHILE = 128
"""Multiply-adds for each number that comes into a convolution from which on it is quicker in integers, their making
included; measured with AVX-512."""
SIMILAR = 0.5
"""Largest difference of the class maps of noise, as a share of their largest value: EfficientNet-lite0 is at 0.03 to
0.13, ResNet-50 at 0.04."""
_SMALLEST = 1e-9
_KINDS = (nn.Conv2d, *SAME_CONVOLUTIONS)


class QuantisedConvolution(nn.Module):
    """A convolution of integers.

    Args:
        convolution: with zero padding, given as numbers or by TensorFlow's rule.
        clipped: ReLU6 follows, and after it convolutions of integers alone: it is computed here, and what is returned
            is (B, D, h, w) uint8 in steps of 6/255.
    """

    def __init__(self, convolution: nn.Conv2d, *, clipped: bool) -> None:
        super().__init__()
        weight = convolution.weight.detach().float()
        steps = (weight.flatten(1).abs().amax(1) / (LEVELS // 2)).clamp(min=_SMALLEST)
        self.register_buffer("weight", (weight / steps[:, None, None, None]).round().to(torch.int8))
        self.register_buffer("steps", steps)
        self.register_buffer("zero_points", torch.zeros(len(weight), dtype=torch.int32))
        bias = convolution.bias
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.clipped = clipped
        self.same = isinstance(convolution, SAME_CONVOLUTIONS)
        self.padding = [0, 0] if self.same else [int(side) for side in convolution.padding]
        self.kernel_size, self.stride, self.dilation = (
            list(sides) for sides in (convolution.kernel_size, convolution.stride, convolution.dilation)
        )
        self.groups = convolution.groups
        self._packed: OrderedDict[Sequence[int], Tensor] = OrderedDict()

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) float32, or uint8 from a clipped one -> (B, D', h, w) float32, or uint8 if this is clipped."""
        integers, step, zero = (x, CLIP / LEVELS, 0) if x.dtype == torch.uint8 else quantised_map(x)
        padding, kept = self.padding, None
        if self.same:
            padding, kept = same_padding(x.shape[2:], self.kernel_size, self.stride, self.dilation)
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            integers,
            step,
            zero,
            self._weights(x.shape, padding),
            self.steps,
            self.zero_points,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            CLIP / LEVELS if self.clipped else 1.0,
            0,
            torch.uint8 if self.clipped else torch.float32,
            "hardtanh" if self.clipped else "none",
            [0.0, CLIP] if self.clipped else [],
            "",
        )
        return result if kept is None else result[:, :, kept[0], kept[1]]

    def _weights(self, shape: Sequence[int], padding: list[int]) -> Tensor:
        """In oneDNN's order for an input of this shape. In another's it would put them in order at every call."""
        if shape in self._packed:
            self._packed.move_to_end(shape)
            return self._packed[shape]
        found: Tensor = torch.ops.onednn.qconv_prepack(
            self.weight, self.steps, 1.0, 0, self.stride, padding, self.dilation, self.groups, list(shape)
        )
        self._packed[shape] = found
        if len(self._packed) > PACKED:
            self._packed.popitem(last=False)
        return found


def quantised_map(x: Tensor) -> tuple[Tensor, float, int]:
    """Any float tensor -> (uint8 of its shape, step, zero point): x is step * (integers - zero point), to half a step.

    Zero is exact, so that zero padding is. The step of what is not finite is not either.
    """
    high, low = max(float(x.amax()), 0.0), min(float(x.amin()), 0.0)
    # One level fewer than there are: the zero point is rounded too.
    step = max(high - low, _SMALLEST) / (LEVELS - 1)
    zero = round(-low / step) if math.isfinite(step) else 0
    return x.mul(1 / step).add_(zero + 0.5).to(torch.uint8), step, zero


@torch.inference_mode()
def quantised(network: PlainNetwork) -> PlainNetwork:
    """A copy whose costly convolutions at a stride of 4 or more are of integers; its results differ by their rounding.

    Args:
        network: in evaluation mode, on the CPU, its BatchNorm folded.

    Returns:
        The copy; the network itself where none of its convolutions gains by it, or where the copy's parts do not fit
        together, which a trial shows. How near its results are to the network's must be seen on photographs: it
        depends on the weights.
    """
    trace = traced(network)
    for passing in (True, False):  # integers may come to what is no layer, which a trace does not show
        plan = _plan(trace, passing=passing)
        result = _with_integers(network, trace, plan)
        if plan and _similar(result, trace):
            return result
    return network


def _plan(trace: Trace, *, passing: bool) -> dict[nn.Module, nn.Module | None]:
    """The convolutions to compute in integers, with the ReLU6 that each takes over if integers are passed on."""
    plan: dict[nn.Module, nn.Module | None] = {}
    given: set[nn.Module] = set()
    for module in trace.calls:  # in the order of the computation
        if not _possible(module, trace) or not (module in given or _worthwhile(module)):
            continue
        plan[module] = None
        takers = _layers_after(trace, module)
        if passing and len(takers) == 1 and isinstance(takers[0], nn.ReLU6) and trace.calls[takers[0]] == 1:
            users = _layers_after(trace, takers[0])
            if users and all(_possible(user, trace) for user in users):
                plan[module] = takers[0]
                given.update(users)
    return plan


def _possible(module: nn.Module, trace: Trace) -> bool:
    """Whether it is a convolution of maps that can be computed in integers, and not a shallow one."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module) in _KINDS
        and trace.calls[module] == 1
        and SHALLOW <= trace.strides[module] < PROBE_SIDE
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _worthwhile(module: nn.Module) -> bool:
    """Whether so much is computed from each number that comes in that making integers of them costs less."""
    assert isinstance(module, nn.Conv2d)
    products = module.out_channels // module.groups * math.prod(module.kernel_size)
    return products >= WORTHWHILE * math.prod(module.stride)


def _layers_after(trace: Trace, module: nn.Module) -> list[nn.Module]:
    """The layers that take a layer's output, those left out that do nothing."""
    found = []
    for taker in trace.takers.get(module, []):
        if isinstance(taker, nn.Identity):
            found += _layers_after(trace, taker)
        elif not any(taker.children()):
            found.append(taker)
    return found


def _with_integers(
    network: PlainNetwork, trace: Trace, plan: Mapping[nn.Module, nn.Module | None]
) -> PlainNetwork:
    result = copy.deepcopy(network)
    for module, clip in plan.items():
        assert isinstance(module, nn.Conv2d)
        layer = QuantisedConvolution(module, clipped=clip is not None)
        replace_module(result, trace.names[module], layer)
        if clip is not None:
            replace_module(result, trace.names[clip], nn.Identity())
    return result


def _similar(result: PlainNetwork, trace: Trace) -> bool:
    """Whether class maps of noise are roughly the network's: integers taken for floats are far from it."""
    try:
        found = result(trace.images)
    except RuntimeError:  # a layer that takes floats alone
        return False
    distance = (found.float() - trace.class_maps).abs().max()
    return bool(distance <= SIMILAR * trace.class_maps.abs().max())
