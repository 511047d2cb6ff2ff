"""Networks: shapes, exits, and that nothing of the exits is left in what is deployed."""

import pytest
import torch
from torch import nn

from tests.networks import CHANNELS, tiny_backbone, tiny_multi_exit, tiny_plain
from wsss.model.heads import AsppHead, ExitHead, LightHead
from wsss.model.multi_exit import MultiExitNetwork, PlainNetwork, classification_network, segmentation_network

IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(5))


def operations(network: nn.Module) -> list[tuple[str, str]]:
    """The exported graph as (kind, target) pairs, in order of execution."""
    exported = torch.export.export(network.eval(), (IMAGES,))
    return [(node.op, str(node.target)) for node in exported.graph.nodes]


def test_exits_pool_shallow_maps_to_stride_8() -> None:
    outputs = tiny_multi_exit(5)(IMAGES)
    assert [tuple(maps.shape) for maps in outputs.class_maps] == [
        (2, 5, 8, 6),
        (2, 5, 8, 6),
        (2, 5, 8, 6),
        (2, 5, 4, 3),
    ]
    assert outputs.feature_maps == []


def test_deployed_output_is_bit_equal_to_the_deepest_exits() -> None:
    network = tiny_multi_exit(3).eval()
    deepest = network(IMAGES).class_maps[-1]
    assert torch.equal(network.deploy()(IMAGES), deepest)


def test_deployed_state_dict_and_graph_equal_the_plain_networks() -> None:
    deployed = MultiExitNetwork(tiny_plain(3), classes=3).deploy()
    plain = tiny_plain(3)
    assert list(deployed.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(deployed.state_dict()[name], value)
    assert operations(deployed) == operations(plain)
    assert sum(p.numel() for p in deployed.parameters()) == sum(p.numel() for p in plain.parameters())
    assert not deployed.training


def test_exits_are_on_the_blocks_that_are_named() -> None:
    network = MultiExitNetwork(tiny_plain(2), classes=2, exits=(2, 4))
    assert network.blocks == [1]
    assert len(network(IMAGES).class_maps) == 2
    only_deepest = MultiExitNetwork(tiny_plain(2), classes=2, exits=(4,))
    assert len(only_deepest(IMAGES).class_maps) == 1


def test_an_exit_on_a_missing_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exits \[2, 5\].*blocks 1 to 4"):
        MultiExitNetwork(tiny_plain(2), classes=2, exits=(2, 5))


def test_projections_have_one_map_per_exit() -> None:
    features = tiny_multi_exit(2, project=7)(IMAGES).feature_maps
    assert [maps.shape[1] for maps in features] == [7, 7, 7, 7]
    assert [tuple(maps.shape[2:]) for maps in features] == [(32, 24), (16, 12), (8, 6), (4, 3)]


def test_backbone_normalises_its_input() -> None:
    backbone = tiny_backbone().eval()
    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    got = backbone(mean)[0]
    wanted = backbone.features.blocks[0](torch.zeros(1, 3, 32, 32))  # type: ignore[index,operator]
    assert torch.allclose(got, wanted, atol=1e-6)


def test_cam_head_pooled_is_a_linear_classifier_on_pooled_features() -> None:
    network = classification_network(tiny_backbone(), 3).eval()
    assert float(network(IMAGES).detach().abs().max()) == 0  # the head starts at zero
    nn.init.normal_(network.state_dict()["head.classifier.weight"])
    features = network.backbone(IMAGES)[-1]
    assert isinstance(network, PlainNetwork)
    weight = network.state_dict()["head.classifier.weight"][:, :, 0, 0]
    assert torch.allclose(network(IMAGES).mean((2, 3)), features.mean((2, 3)) @ weight.T, atol=1e-6)


def test_aspp_is_the_sum_of_four_dilated_convolutions() -> None:
    head = AsppHead(6, 4)
    features = torch.rand(1, 6, 9, 7)
    total = torch.zeros(1, 4, 9, 7)
    for branch, rate in zip(head.branches, (6, 12, 18, 24), strict=True):
        assert isinstance(branch, nn.Conv2d)
        assert branch.dilation == (rate, rate)
        total += branch(features)
    assert torch.allclose(head(features), total, atol=1e-6)


@pytest.mark.parametrize("kind", ["aspp", "light"])
def test_segmentation_networks_have_a_background_channel(kind: str) -> None:
    network = segmentation_network(tiny_backbone(), 3, head=kind, head_channels=16).eval()
    assert network(IMAGES).shape == (2, 4, 4, 3)
    assert isinstance(network.head, AsppHead if kind == "aspp" else LightHead)


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(4, 8, 4), (16, 8, 8), (8, 8, 8), (40, 64, 32), (320, 64, 64), (320, 70, 64)],
)
def test_exit_heads_are_no_wider_than_their_block(channels: int, width: int, expected: int) -> None:
    assert ExitHead(channels, 8, 3, width).classifier.in_channels == expected


def test_exit_head_of_one_pixel_maps() -> None:
    head = ExitHead(CHANNELS[0], 2, 3, 8)
    for images in (1, 2):
        assert head(torch.rand(images, CHANNELS[0], 1, 1)).shape == (images, 3, 1, 1)


def test_heads_do_not_mix_the_images_of_a_batch() -> None:
    head = ExitHead(4, 8, 3, 8)
    maps = torch.rand(3, 4, 5, 5)
    assert torch.allclose(head(maps)[:1], head(maps[:1]), atol=1e-6)
