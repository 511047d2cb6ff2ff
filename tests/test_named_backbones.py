"""Backbones by name, in both structures, forward and backward on sizes that divide by nothing; and deployed."""

import pytest
import torch

from wsss.model.backbone import Backbone, create_backbone
from wsss.model.multi_exit import MultiExitNetwork, segmentation_network

NAMED = [
    ("resnet18", 8),
    ("resnet18", 16),
    ("resnet50", 8),
    ("resnet50", 16),
    ("resnet101", 8),
    ("resnet101", 16),
    ("tf_efficientnet_lite0", 16),
    ("mobilenetv3_large_100", 16),
    ("mobilenetv3_small_100", 32),
    ("convnext_tiny", 32),
    ("hrnet_w18", 32),
]
IMAGES = torch.rand(2, 3, 70, 45, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "stride"), NAMED)
def test_forward_backward_and_deployed(name: str, stride: int) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, weights="none", output_stride=stride)
    for structure in ("conv", "ushape"):
        check(backbone, structure, stride)


def check(backbone: Backbone, structure: str, stride: int) -> None:
    plain = segmentation_network(
        backbone, 2, head="light", head_channels=8, structure=structure, decoder_channels=8
    )
    network = MultiExitNetwork(plain, classes=3, width=8).train()
    outputs = network(IMAGES)
    assert len(outputs.class_maps) == len(plain.channels)
    assert plain.strides[: len(backbone.strides)] == backbone.strides
    assert plain.stride == (stride if structure == "conv" else backbone.strides[0])
    for maps, cell in zip(outputs.class_maps, plain.strides, strict=True):
        cell = max(cell, 8) if maps is not outputs.class_maps[-1] else cell
        assert maps.shape == (2, 3, -(-70 // cell), -(-45 // cell))
    torch.stack([maps.float().square().mean() for maps in outputs.class_maps]).sum().backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
    network.zero_grad(set_to_none=True)
    deployed = network.eval().deploy()
    with torch.inference_mode():
        assert torch.equal(deployed(IMAGES), network(IMAGES).class_maps[-1])
