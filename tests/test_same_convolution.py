"""Depthwise "same" convolutions: timm's results and gradients, for every parity of sides, kernels and strides."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.model.backbone import create_backbone
from wsss.same_convolution import SameConvolution, without_copies

from timm.layers.conv2d_same import Conv2dSame  # isort: skip - after wsss.runtime.torchvision_guard


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (7, 4, 1), (3, 2, 2), (2, 2, 1)]
)
def test_results_and_gradients_are_timms(kernel: int, stride: int, dilation: int) -> None:
    for height, width in itertools.product(range(5, 13), (6, 7)):
        plain = Conv2dSame(4, 4, kernel, stride=stride, dilation=dilation, groups=4).double()
        images = torch.randn(2, 4, height, width, dtype=torch.float64, requires_grad=True)
        wanted = plain(images)
        slope = torch.sin(torch.arange(wanted.numel(), dtype=torch.float64)).view_as(wanted)
        inputs = [images, *plain.parameters()]
        gradients = torch.autograd.grad(wanted, inputs, slope)
        without_copies(plain)
        assert type(plain) is SameConvolution
        found = plain(images)
        torch.testing.assert_close(found, wanted)
        for own, expected in zip(torch.autograd.grad(found, inputs, slope), gradients, strict=True):
            torch.testing.assert_close(own, expected)


def test_the_map_itself_is_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(Conv2dSame(4, 4, 3, stride=2, groups=4))
    without_copies(network)
    real, images = F.conv2d, torch.rand(1, 4, 8, 8)

    def convolution(maps: Tensor, *more: Any) -> Tensor:
        assert maps is images
        return real(maps, *more)

    monkeypatch.setattr(F, "conv2d", convolution)
    assert network(images).shape == (1, 4, 4, 4)


def test_backbones_have_them_for_depthwise_layers_alone() -> None:
    network = create_backbone("tf_efficientnet_lite0", weights="none", output_stride=16)
    same = [module for module in network.modules() if isinstance(module, Conv2dSame)]
    assert len(same) > 1
    assert all(isinstance(each, SameConvolution) == (each.groups > 1) for each in same)
