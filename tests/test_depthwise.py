"""Depthwise convolutions in another form: the same results and gradients, and oneDNN's quick kernels behind them."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wsss.depthwise import quick_depthwise

CPU = torch.device("cpu")
FORMS = [
    # kernel, stride, padding, dilation, height, width
    (3, 1, 1, 1, 7, 9),
    (3, 2, 0, 1, 9, 8),
    (5, 1, 2, 1, 6, 7),
    (5, 2, 2, 1, 9, 12),
    (3, 1, 2, 2, 8, 8),
    (3, 1, 2, 2, 9, 11),
    (5, 1, 4, 2, 10, 13),
    (3, 1, 3, 3, 13, 14),
    (3, 1, 6, 6, 12, 12),  # grids of two rows are left together
    (3, 1, 1, 2, 12, 12),  # not "same": left as it is
]


class _Recorded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """(dtype, dilation) of every convolution that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[torch.dtype, list[int]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.seen.append((args[0].dtype, args[5]))
        return func(*args, **(kwargs or {}))


def _material(kernel: int, height: int, width: int, *, channels: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    images = torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    return images.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "height", "width"), FORMS)
def test_results_and_gradients_are_those_of_the_plain_convolution(
    kernel: int, stride: int, padding: int, dilation: int, height: int, width: int
) -> None:
    found = []
    for device in (torch.device("cuda"), CPU):  # elsewhere nothing changes: that is the reference
        images, weight, bias = _material(kernel, height, width)
        with quick_depthwise(device):
            result = F.conv2d(images, weight, bias, stride, padding, dilation, groups=len(weight))
        slope = torch.sin(torch.arange(result.numel(), dtype=torch.float64)).view_as(result)
        found.append((result, *torch.autograd.grad(result, (images, weight, bias), slope)))
    for plain, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain)


def test_dilated_ones_become_undilated() -> None:
    images, weight, _ = _material(5, 16, 16)
    with _Recorded() as recorded, quick_depthwise(CPU):
        F.conv2d(images, weight, padding=4, dilation=2, groups=6)
        F.conv2d(images, weight, padding=8, dilation=4, groups=6)
    assert [dilation for _, dilation in recorded.seen] == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("kernel", "stride", "dtype"), [(5, 1, torch.float32), (3, 2, torch.float32), (3, 1, torch.bfloat16)]
)
def test_autocast_leaves_what_bfloat16_is_slow_at_in_float32(
    kernel: int, stride: int, dtype: torch.dtype
) -> None:
    images, weight, _ = (tensor.detach().float().requires_grad_() for tensor in _material(kernel, 9, 9))
    with _Recorded() as recorded, torch.autocast("cpu", torch.bfloat16), quick_depthwise(CPU):
        result = F.conv2d(images, weight, stride=stride, groups=6)
    assert [each for each, _ in recorded.seen] == [dtype]
    assert result.dtype == torch.bfloat16
    plain = F.conv2d(images, weight, stride=stride, groups=6)
    torch.testing.assert_close(result.float(), plain, rtol=0.02, atol=0.1)
    (own,) = torch.autograd.grad(result.float().sum(), weight)
    (wanted,) = torch.autograd.grad(plain.sum(), weight)
    torch.testing.assert_close(own, wanted, rtol=0.02, atol=0.1)


def test_without_a_gradient_and_with_groups_of_channels_nothing_changes() -> None:
    images, weight, _ = _material(3, 12, 12)
    grouped = torch.randn(6, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    with _Recorded() as recorded, quick_depthwise(CPU):
        F.conv2d(images.detach(), weight.detach(), padding=2, dilation=2, groups=6)
        with torch.no_grad():
            F.conv2d(images, weight, padding=2, dilation=2, groups=6)
        F.conv2d(images, grouped, padding=2, dilation=2, groups=2)
    assert [dilation for _, dilation in recorded.seen] == [[2, 2]] * 3


def test_it_can_be_compiled() -> None:
    images, weight, _ = _material(3, 12, 12)

    def convolution(images: Tensor) -> Tensor:
        return F.conv2d(images, weight, padding=2, dilation=2, groups=6)

    quick = torch.compile(convolution, backend="eager")
    with quick_depthwise(CPU):
        torch.testing.assert_close(quick(images), convolution(images))
