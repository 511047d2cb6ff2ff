"""Convolutions in integers against slow float64 ones on the same integers, and whole networks against themselves."""

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import wsss.quantised
from tests.networks import tiny_plain
from wsss.model.backbone import create_backbone
from wsss.model.folding import folded
from wsss.model.multi_exit import PlainNetwork, classification_network
from wsss.quantised import PACKED, QuantisedConvolution, quantised, quantised_map
from wsss.runtime.device import multiplies_integers
from wsss.same_convolution import SameConvolution

from timm.layers.conv2d_same import Conv2dSame  # isort: skip - after wsss.runtime.torchvision_guard

if not multiplies_integers():
    pytest.skip("this processor has no VNNI", allow_module_level=True)

FORMS: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "bias": False},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": (2, 1), "dilation": (2, 1), "stride": (1, 2)},
    {"kernel_size": 5, "padding": 2, "groups": 8},
    {"kernel_size": 3, "padding": 1, "groups": 2, "stride": 2},
]


def _images(*shape: int, low: float, high: float) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * (high - low) + low
    return values.contiguous(memory_format=torch.channels_last)


def _slow_weights(convolution: nn.Conv2d) -> Tensor:
    """Each output channel rounded to 127 steps of its largest weight, float64."""
    weight = convolution.weight.detach().double()
    steps = weight.abs().flatten(1).max(1).values[:, None, None, None] / 127
    return (weight / steps).round() * steps


def _slow(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """The convolution with rounded weights of what the layer makes of its input."""
    integers, step, zero = quantised_map(maps)
    slow = copy.deepcopy(convolution).double()
    slow.weight.data = _slow_weights(convolution)
    return torch.as_tensor(slow((integers.double() - zero) * step)).detach()


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.0, 6.0), (2.0, 3.0), (-2.0, -1.0)])
def test_equals_the_slow_version(form: dict[str, Any], low: float, high: float) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 8, **form)
    layer = QuantisedConvolution(convolution, clipped=False)
    for sides in ((9, 12), (8, 7), (9, 12)):
        maps = _images(2, 8, *sides, low=low, high=high)
        expected = _slow(convolution, maps)
        found = layer(maps)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Conv2dSame, SameConvolution])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 2, 8), (5, 2, 8), (3, 2, 1), (3, 1, 1)])
def test_tensorflows_padding(kind: type[nn.Conv2d], kernel: int, stride: int, groups: int) -> None:
    torch.manual_seed(0)
    form: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "groups": groups}
    convolution = kind(8, 8, **form)
    layer = QuantisedConvolution(convolution, clipped=False)
    for height, width in itertools.product((7, 8), (9, 10)):
        maps = _images(1, 8, height, width, low=-1, high=2)
        torch.testing.assert_close(layer(maps).double(), _slow(convolution, maps), rtol=0, atol=1e-5)


def test_a_clipped_one_gives_relu6_in_steps_that_the_next_one_takes() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 4, 1)
    first.weight.data *= 8  # some of its outputs are above 6
    maps = _images(1, 8, 9, 9, low=-1, high=1)
    middle = QuantisedConvolution(first, clipped=True)(maps)
    assert middle.dtype == torch.uint8
    clipped = _slow(first, maps).clamp(0, 6)
    assert clipped.max() == 6
    assert (middle.double() * (6 / 255) - clipped).abs().max() <= 0.5001 * 6 / 255
    found = QuantisedConvolution(second, clipped=False)(middle)
    assert second.bias is not None
    expected = F.conv2d(middle.double() * (6 / 255), _slow_weights(second), second.bias.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_a_channel_without_weights_is_its_bias() -> None:
    convolution = nn.Conv2d(8, 2, 1)
    convolution.weight.data[1] = 0
    assert convolution.bias is not None
    found = QuantisedConvolution(convolution, clipped=False)(_images(1, 8, 5, 5, low=-1, high=1))
    torch.testing.assert_close(found[0, 1], convolution.bias.detach()[1].expand(5, 5))


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.sampled_from([0.0, 1e-3, 1.0, 100.0]),
)
def test_a_map_is_its_integers_to_half_a_step_and_zero_is_exact(values: list[float], factor: float) -> None:
    maps = torch.tensor(values)[None, :, None, None] * factor
    integers, step, zero = quantised_map(maps)
    assert integers.dtype == torch.uint8
    assert 0 <= zero <= 255
    distance = ((integers.double() - zero) * step - maps.double()).abs().max()
    assert distance <= 0.501 * step + 1e-5 * float(maps.abs().max())
    assert ((integers == zero) | (maps.abs() > 0.49 * step)).all()


def test_weights_are_kept_for_a_few_sizes() -> None:
    layer = QuantisedConvolution(nn.Conv2d(8, 8, 1), clipped=False)
    for side in range(1, 3 * PACKED):
        layer(torch.rand(1, 8, side, side))
    assert len(layer._packed) == PACKED
    assert (1, 8, 1, 1) not in layer._packed
    assert (1, 8, 3 * PACKED - 1, 3 * PACKED - 1) in layer._packed


def _lite() -> PlainNetwork:
    network = classification_network(
        create_backbone("tf_efficientnet_lite0", weights="bundled", output_stride=16), 4
    )
    torch.manual_seed(0)
    nn.init.normal_(network.head.classifier.weight)  # type: ignore[arg-type, union-attr]
    return folded(network.eval())


def test_a_whole_network_is_nearly_the_same_with_most_of_it_in_integers() -> None:
    network = _lite()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = quantised(network)
    layers = [module for module in result.modules() if isinstance(module, QuantisedConvolution)]
    left = [name for name, module in result.named_modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) > 40
    assert sum(layer.clipped for layer in layers) > 25, "between expansion, depthwise and projection"
    assert all(
        any(part in name for part in ("conv_stem", "blocks.0", "blocks.1", "classifier")) for name in left
    )
    images = F.interpolate(torch.rand(2, 3, 5, 7), (90, 130), mode="bilinear")
    with torch.inference_mode():
        expected, found = network(images), result(images)
    assert 0 < (found - expected).abs().mean() < 0.06 * expected.abs().max()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), "the network itself stays as it was"


def test_where_relu_has_no_end_floats_go_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsss.quantised, "WORTHWHILE", 1)  # the network is tiny
    network = folded(tiny_plain(3).eval())
    result = quantised(network)
    layers = [module for module in result.modules() if isinstance(module, QuantisedConvolution)]
    assert len(layers) == 3, "those at strides 4 and 8, and the classifier"
    assert not any(layer.clipped for layer in layers)
    images = torch.rand(1, 3, 70, 50)
    with torch.inference_mode():
        expected, found = network(images), result(images)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


class _Chain(nn.Module):
    """Convolutions with ReLU6 in between, whose output something else may use as well."""

    def __init__(self, use: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.down = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.first, self.act, self.second = nn.Conv2d(8, 128, 1), nn.ReLU6(), nn.Conv2d(128, 128, 1)

    def forward(self, images: Tensor) -> Tensor:
        middle = self.act(self.first(self.down(images)))
        after = self.second(middle)
        if self.use == "sum":
            return torch.as_tensor(after + middle)
        return torch.as_tensor(after * middle.mean((2, 3), keepdim=True) if self.use == "mean" else after)


@pytest.mark.parametrize(("use", "clipped"), [("nothing", 1), ("sum", 0), ("mean", 0)])
def test_integers_never_come_to_what_takes_floats(use: str, clipped: int) -> None:
    network = _Chain(use).eval()
    result = quantised(network)  # type: ignore[arg-type]
    layers = [module for module in result.modules() if isinstance(module, QuantisedConvolution)]
    assert len(layers) == 2
    assert sum(layer.clipped for layer in layers) == clipped
    images = torch.rand(1, 3, 40, 40)
    with torch.inference_mode():
        expected = network(images)
        assert (result(images) - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize(
    ("form", "integers"),
    [
        ({"out_channels": 128, "kernel_size": 1}, True),
        ({"out_channels": 127, "kernel_size": 1}, False),
        ({"out_channels": 16, "kernel_size": 3, "padding": 1}, True),
        ({"out_channels": 16, "kernel_size": 3, "padding": 1, "stride": 2}, False),
        ({"out_channels": 128, "kernel_size": 1, "groups": 2}, False),
    ],
)
def test_a_convolution_that_costs_less_than_making_integers_is_left_alone(
    form: dict[str, Any], integers: bool
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, **form)).eval()
    result = quantised(network)  # type: ignore[arg-type]
    assert isinstance(result[3], QuantisedConvolution) == integers  # type: ignore[index]
    assert (result is network) != integers  # type: ignore[comparison-overlap]


class _Odd(nn.Module):
    """Convolutions that cannot be computed in integers."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)
        self.shared = nn.Conv2d(3, 3, 1)
        self.reflecting = nn.Conv2d(3, 128, 3, padding=1, padding_mode="reflect")
        self.named = nn.Conv2d(128, 128, 3, padding="same")
        self.of_everything = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(128, 128, 1))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.named(self.reflecting(self.shared(self.shared(self.pool(images)))))
        return torch.as_tensor(maps + self.of_everything(maps))


def test_other_convolutions_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsss.quantised, "WORTHWHILE", 1)
    network = _Odd().eval()
    assert quantised(network) is network  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_that_is_not_finite_is_left_alone(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(wsss.quantised, "WORTHWHILE", 1)
    network = tiny_plain(3).eval()
    network.backbone.features.blocks[1][0].bias.data.fill_(value)  # type: ignore[index, union-attr]
    assert quantised(network) is network


def test_what_is_not_finite_stays_so() -> None:
    layer = QuantisedConvolution(nn.Conv2d(8, 8, 1), clipped=False)
    for value in (float("nan"), float("inf"), float("-inf")):
        assert not layer(torch.full((1, 8, 3, 3), value)).isfinite().any()
