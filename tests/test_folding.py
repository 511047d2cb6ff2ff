"""Folding of BatchNorm: the same class maps, for every kind of backbone, and nothing where it cannot be done."""

import pytest
import torch
from torch import Tensor, nn

from stages.training import training_network
from wsss.config import ClassifyConfig, SegmentConfig, TrainConfig
from wsss.model.folding import folded
from wsss.model.multi_exit import PlainNetwork

NETWORKS = (
    SegmentConfig(backbone="resnet18", weights="none", output_stride=16, head="light", head_channels=8),
    SegmentConfig(backbone="tf_efficientnet_lite0", weights="none", structure="ushape", decoder_channels=8),
    ClassifyConfig(backbone="mobilenetv3_small_050", weights="none", output_stride=16),
    ClassifyConfig(backbone="hrnet_w18_small", weights="none", output_stride=32),
)


def _trained(config: TrainConfig) -> PlainNetwork:
    """A network whose BatchNorm layers all scale and shift."""
    torch.manual_seed(0)
    network = training_network(config, 4, "segment").deploy()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                assert value is not None
                value.uniform_(low, high)
        if hasattr(module, "weight") and isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network.eval()


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.backbone)
def test_same_maps_without_batch_norm(config: TrainConfig) -> None:
    network = _trained(config)
    before = _norms(network)
    result = folded(network)
    images = torch.rand(2, 3, 70, 90)
    with torch.inference_mode():
        expected, found = network(images), result(images)
    assert before > 10
    assert _norms(network) == before, "the network itself stays as it was"
    assert _norms(result) == 0
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


class _Odd(nn.Module):
    """Its convolution's output is used twice, once without the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        assert self.norm.running_mean is not None
        self.norm.running_mean.fill_(3.0)

    def forward(self, images: Tensor) -> Tensor:
        raw = self.conv(images)
        return torch.as_tensor(self.norm(raw) + raw)


def test_an_output_used_twice_is_left_alone() -> None:
    network = _Odd().eval()
    assert folded(network) is network  # type: ignore[arg-type, comparison-overlap]


def test_numbers_that_are_not_finite_are_left_alone() -> None:
    network = _trained(NETWORKS[0])
    next(network.parameters()).data.fill_(float("nan"))
    assert folded(network) is network


class _Shared(nn.Module):
    """One convolution, called twice, with a BatchNorm after the first call only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.tail = nn.Conv2d(3, 2, 1)
        self.last = nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.last(self.tail(self.conv(self.norm(self.conv(images))))))


def test_a_convolution_called_twice_keeps_its_batch_norm() -> None:
    result = folded(_Shared().eval())  # type: ignore[arg-type]
    assert isinstance(result.norm, nn.BatchNorm2d)
    assert isinstance(result.last, nn.Identity)
