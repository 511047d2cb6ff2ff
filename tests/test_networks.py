"""Networks: shapes, exits, the U-shape's decoder, folding; nothing of the exits is left in what is deployed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.training import check_training, training_network
from tests.networks import CHANNELS, tiny_backbone, tiny_multi_exit, tiny_plain, tiny_segmenter
from wsss.config import ClassifyConfig, RunConfig, SegmentConfig, TrainConfig
from wsss.errors import UserError
from wsss.model.decoder import Decoder, LowLevelDecoder, UpBlock
from wsss.model.heads import AsppHead, CamHead, ExitHead, LightHead, OcrHead, PixelHead
from wsss.model.multi_exit import (
    MultiExitNetwork,
    PlainNetwork,
    folded,
    plain_network,
)

IMAGES = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(5))
ODD = torch.rand(2, 3, 70, 45, generator=torch.Generator().manual_seed(5))


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


def test_projections_have_one_map_per_exit_of_the_shallowests_width() -> None:
    features = tiny_multi_exit(2, project=True)(IMAGES).feature_maps
    assert [maps.shape[1] for maps in features] == [4, 4, 4, 4]
    assert [tuple(maps.shape[2:]) for maps in features] == [(8, 6), (16, 12), (8, 6), (4, 3)]
    ushape = MultiExitNetwork(tiny_segmenter(2, structure="ushape"), classes=3, project=True)
    assert len(ushape(IMAGES).feature_maps) == 4  # SR-F acts in the encoder alone


def test_backbone_normalises_its_input() -> None:
    backbone = tiny_backbone().eval()
    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    got = backbone(mean)[0]
    wanted = backbone.features.blocks[0](torch.zeros(1, 3, 32, 32))  # type: ignore[index,operator]
    assert torch.allclose(got, wanted, atol=1e-6)


def test_cam_head_pooled_is_a_linear_classifier_on_pooled_features() -> None:
    network = plain_network(ClassifyConfig(), 3, tiny_backbone()).eval()
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
    network = tiny_segmenter(3, head=kind, width=16).eval()
    assert network(IMAGES).shape == (2, 4, 4, 3)
    assert isinstance(network.head, AsppHead if kind == "aspp" else LightHead)


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(4, 8, 4), (16, 8, 8), (8, 8, 8), (40, 64, 32), (320, 64, 64), (320, 70, 64)],
)
def test_exit_heads_are_no_wider_than_their_block(channels: int, width: int, expected: int) -> None:
    assert ExitHead(channels, 8, 3, width).classifier.in_channels == expected


def test_heads_do_not_mix_the_images_of_a_batch() -> None:
    head = ExitHead(4, 8, 3, 8)
    maps = torch.rand(3, 4, 5, 5)
    assert torch.allclose(head(maps)[:1], head(maps[:1]), atol=1e-6)


def test_as_many_blocks_as_the_encoder_each_on_its_grid() -> None:
    decoder = Decoder([8, 40, 112, 320], [2, 4, 16, 16], 64)
    assert decoder.channels == [64, 64, 64, 64]
    assert decoder.strides == [16, 16, 4, 2]
    features = [
        torch.rand(1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip([8, 40, 112, 320], [2, 4, 16, 16], strict=True)
    ]
    shapes = [tuple(single.shape) for single in decoder(features)]
    assert shapes == [(1, 64, 4, 6), (1, 64, 4, 6), (1, 64, 16, 24), (1, 64, 32, 48)]


def test_a_block_adds_the_enlarged_map_the_skip_connection_and_a_convolution() -> None:
    torch.manual_seed(0)
    block = UpBlock(2, 5, 2)
    deep, skip = torch.rand(1, 5, 4, 3), torch.rand(1, 2, 7, 6)
    enlarged = torch.zeros(1, 5, 8, 6)
    for y in range(8):  # half-pixel centres
        for x in range(6):
            enlarged[:, :, y, x] = bilinear(deep, (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)
    joined = enlarged[:, :, :7] + normalised(block.lateral[0](skip))
    wanted = joined + normalised(block.body[0](joined)).relu()
    assert torch.allclose(block(deep, skip), wanted, atol=1e-5)


def normalised(maps: Tensor) -> Tensor:
    mean, deviation = maps.mean(1, keepdim=True), maps.var(1, unbiased=False, keepdim=True)
    return (maps - mean) / (deviation + 1e-6).sqrt()


def bilinear(maps: Tensor, y: float, x: float) -> Tensor:
    height, width = maps.shape[2:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = maps[:, :, top, left] * (1 - across) + maps[:, :, top, right] * across
    lower = maps[:, :, below, left] * (1 - across) + maps[:, :, below, right] * across
    return upper * (1 - down) + lower * down


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_networks_of_the_u_shape_give_maps_at_the_shallowest_stride(task: str) -> None:
    backbone = tiny_backbone()
    if task == "classification":
        network = plain_network(ClassifyConfig(structure="ushape", decoder_channels=8), 3, backbone)
    else:
        network = plain_network(
            SegmentConfig(head="aspp", head_channels=8, structure="ushape", decoder_channels=8), 2, backbone
        )
        assert isinstance(network.head, PixelHead)
    assert network.channels == [*CHANNELS, 8, 8, 8, 8]
    assert network.strides == [2, 4, 8, 16, 16, 8, 4, 2]
    assert network.stride == 2
    assert network.eval()(ODD).shape == (2, 3, 35, 23)


def test_exits_of_the_u_shape_and_its_deployment() -> None:
    plain = tiny_segmenter(2, structure="ushape")
    network = MultiExitNetwork(plain, classes=3, width=8).eval()
    outputs = network(ODD)
    sizes = [tuple(single.shape[2:]) for single in outputs.class_maps]
    assert sizes == [(9, 6), (9, 6), (9, 6), (5, 3), (5, 3), (9, 6), (9, 6), (35, 23)]
    assert len(outputs.class_maps[outputs.encoder]) == 4
    assert len(outputs.class_maps[outputs.decoder]) == 4
    assert torch.equal(network.deploy()(ODD), outputs.class_maps[-1])
    assert not [name for name in network.deploy().state_dict() if "exit" in name]
    with pytest.raises(ValueError, match=r"exits \[9\].*blocks 1 to 8"):
        MultiExitNetwork(plain, classes=3, exits=(9,))


NETWORKS = (
    SegmentConfig(backbone="resnet18", weights="none", output_stride=16, head="light", head_channels=8),
    SegmentConfig(backbone="tf_efficientnet_lite0", weights="none", structure="ushape", decoder_channels=8),
    ClassifyConfig(backbone="mobilenetv3_small_050", weights="none", output_stride=16),
    ClassifyConfig(backbone="hrnet_w18_small", weights="none", output_stride=32),
)


def trained(config: TrainConfig) -> PlainNetwork:
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


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.backbone)
def test_folded_networks_give_the_same_maps_without_batch_norm(config: TrainConfig) -> None:
    network = trained(config)
    before = norms(network)
    result = folded(network)
    images = torch.rand(2, 3, 70, 90)
    with torch.inference_mode():
        expected, found = network(images), result(images)
    assert before > 10
    assert norms(network) == before, "the network itself stays as it was"
    assert norms(result) == 0
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


class Skip(nn.Module):
    """The first convolution's output is used twice, once without its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        assert self.norm.running_mean is not None
        self.norm.running_mean.fill_(3.0)

    def forward(self, images: Tensor) -> Tensor:
        raw = self.conv(images)
        return torch.as_tensor(self.norm(raw) + raw)


def test_what_cannot_be_folded_stays_as_it_is() -> None:
    twice: Any = Skip().eval()
    assert folded(twice) is twice
    broken = trained(NETWORKS[0])
    next(broken.parameters()).data.fill_(float("nan"))
    assert folded(broken) is broken


def test_hrnet_reads_all_of_its_branches() -> None:
    for config in (
        SegmentConfig(
            backbone="hrnet_w18_small", weights="none", output_stride=32, head="ocr", head_channels=16
        ),
        ClassifyConfig(backbone="hrnet_w18_small", weights="none", output_stride=32),
    ):
        network = training_network(config, 2, "segment").eval()
        plain = network.plain
        assert plain.channels == [64, 16, 32, 64, 128, 16 + 32 + 64 + 128]
        assert plain.stride == 4
        assert [tuple(maps.shape[2:]) for maps in network(ODD).class_maps] == [
            (9, 6), (9, 6), (9, 6), (5, 3), (3, 2), (18, 12),
        ]  # fmt: skip
        if isinstance(plain.head, CamHead):  # it starts at zero
            nn.init.normal_(plain.head.classifier.weight)
        features = plain.backbone(ODD)
        merged = plain.decoder(features)[0]  # type: ignore[misc]
        assert torch.equal(merged[:, :16], features[1])
        deepest = F.interpolate(features[4], size=(18, 12), mode="bilinear")
        assert torch.equal(merged[:, -128:], deepest)
        before = plain.head(merged)
        for first, last in ((0, 16), (16, 48), (48, 112), (112, 240)):
            without = merged.clone()
            without[:, first:last] = 0
            assert not torch.equal(plain.head(without), before)


def test_frozen_branches_are_refused() -> None:
    config = SegmentConfig(backbone="hrnet_w18_small", weights="none", output_stride=32, frozen_blocks=1)
    with pytest.raises(UserError, match=r"segment\.frozen_blocks = 1: the branches of hrnet_w18_small"):
        training_network(config, 2, "segment")


def test_ocr_head_equals_its_definition_pixel_by_pixel() -> None:
    torch.manual_seed(1)
    head = OcrHead(6, 3, 8).eval()
    features = torch.randn(2, 6, 3, 4)
    regions, final = head.both(features)
    assert torch.equal(head(features), final)
    pixels = head.pixels(features)
    for b in range(2):
        places = [(y, x) for y in range(3) for x in range(4)]
        objects = torch.zeros(8, 3)
        for label in range(3):  # the mean of the pixels of a region, by how likely each is in it
            scores = torch.stack([regions[b, label, y, x] for y, x in places]).exp()
            for weight, (y, x) in zip(scores / scores.sum(), places, strict=True):
                objects[:, label] += weight * pixels[b, :, y, x]
        keys, values = (layer(objects[None, :, :, None])[0, :, :, 0] for layer in (head.key, head.value))
        queries = head.query(pixels[b : b + 1])[0]
        context = torch.zeros(1, 4, 3, 4)
        for y, x in places:
            relation = torch.stack([queries[:, y, x] @ keys[:, label] for label in range(3)]) / 4**0.5
            for weight, label in zip(relation.exp() / relation.exp().sum(), range(3), strict=True):
                context[0, :, y, x] += weight * values[:, label]
        joined = torch.cat([head.context(context), pixels[b : b + 1]], 1)
        assert torch.allclose(head.classifier(head.fuse(joined))[0], final[b], atol=1e-5)


LITE = ClassifyConfig(backbone="tf_efficientnet_lite0", weights="none", exits=(3, 4), frozen_blocks=5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LITE, ["frozen_blocks = 5: MEA and SR-L train exits of frozen blocks alone"]),
        (replace(LITE, frozen_blocks=3), []),
        (
            replace(LITE, mea=False, weight_sr_l=0.0),
            ["mea = false: nothing trains the exit that teaches SR-F"],
        ),
        (replace(LITE, structure="ushape", exits=()), ["frozen_blocks = 5: SR-F train"]),
        (replace(LITE, mea=False, weight_sr_f=0.0, weight_sr_l=0.0), []),
    ],
)
def test_terms_that_reach_nothing_that_is_deployed_are_named(config: TrainConfig, said: list[str]) -> None:
    notes = check_training(config, "classify", RunConfig())
    assert len(notes) == len(said)
    assert all(note.startswith(f"classify.{part}") for note, part in zip(notes, said, strict=True))


@pytest.mark.parametrize("size", [(64, 96), (61, 35)])
def test_low_level_decoder_reaches_stride_4_and_every_map_it_joins(size: tuple[int, int]) -> None:
    channels, strides = [8, 12, 16, 24], [2, 4, 8, 16]
    decoder = LowLevelDecoder(channels, strides, 16).eval()
    assert (decoder.channels, decoder.strides) == ([24], [4])
    features = [
        torch.rand(1, D, -(-size[0] // stride), -(-size[1] // stride), requires_grad=True)
        for D, stride in zip(channels, strides, strict=True)
    ]
    (found,) = decoder(features)
    assert found.shape == (1, 24, -(-size[0] // 4), -(-size[1] // 4))
    found.sum().backward()
    assert [feature.grad is not None for feature in features] == [False, True, True, True]


def test_v3plus_has_finer_maps_and_exits_as_any_other_conv_network() -> None:
    plain = tiny_segmenter(3, head="v3plus", width=16)
    network = MultiExitNetwork(plain, classes=4).eval()
    outputs = network(IMAGES)
    assert len(outputs.class_maps) == len(tiny_backbone().channels) + 1
    assert outputs.class_maps[-1].shape[2:] == plain(IMAGES).shape[2:]
    assert (outputs.encoder, outputs.decoder) == (slice(None), slice(None))
