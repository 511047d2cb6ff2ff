"""Backbones: the bundled weights know known images, files load safely, errors say what to do."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.torch
import skimage.data
import torch
from torch import Tensor

from wsss.config import SegmentConfig
from wsss.errors import UserError
from wsss.model.backbone import BUNDLED_NORM, Backbone, bundled_state, create_backbone
from wsss.model.multi_exit import MultiExitNetwork, plain_network
from wsss.model.weights import BUNDLED_BACKBONE, weights_identity

import timm  # isort: skip

EGYPTIAN_CAT, TABBY, TIGER_CAT, ESPRESSO, CUP = 285, 281, 282, 967, 968


def known_image(name: str) -> Tensor:
    """An image of scikit-image as (1, 3, 224, 224) in [0, 1]."""
    image = (
        torch.from_numpy(np.ascontiguousarray(getattr(skimage.data, name)())).permute(2, 0, 1)[None].float()
    )
    side = min(image.shape[2:])
    top, left = ((full - side) // 2 for full in image.shape[2:])
    square = image[:, :, top : top + side, left : left + side]
    return torch.nn.functional.interpolate(square, (224, 224), mode="bilinear", antialias=True) / 255


@pytest.mark.parametrize(
    ("name", "wanted"), [("chelsea", {EGYPTIAN_CAT, TABBY, TIGER_CAT}), ("coffee", {ESPRESSO, CUP})]
)
def test_bundled_weights_classify_known_images(name: str, wanted: set[int]) -> None:
    model = timm.create_model(BUNDLED_BACKBONE, pretrained=False)
    model.load_state_dict(bundled_state(), strict=False)
    with torch.inference_mode():
        scores = model.eval()((known_image(name) - BUNDLED_NORM[0]) / BUNDLED_NORM[1]).softmax(1)[0]
    assert int(scores.argmax()) in wanted
    assert float(scores.max()) > 0.4


def test_bundled_backbone_holds_the_bundled_tensors_and_their_normalisation() -> None:
    backbone = create_backbone(BUNDLED_BACKBONE, weights="bundled", output_stride=16)
    state, bundled = backbone.features.state_dict(), bundled_state()
    shared = [name for name in state if name in bundled]
    assert len(shared) > 200
    assert all(torch.equal(state[name], bundled[name]) for name in shared)
    assert backbone.channels == [16, 24, 40, 112, 320]
    assert backbone.strides == [2, 4, 8, 16, 16]
    assert float(backbone.mean[0, 0]) == pytest.approx(127 / 255)
    assert float(backbone.std[0, 0]) == pytest.approx(128 / 255)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_weight_file_is_loaded_and_identified_by_its_content(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(3)
    source = timm.create_model("resnet18", pretrained=False)
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": source.state_dict()}, path)
    else:
        safetensors.torch.save_file(source.state_dict(), path)
    backbone = create_backbone("resnet18", weights=str(path), output_stride=16)
    assert torch.equal(
        backbone.features.state_dict()["layer4.1.conv2.weight"], source.state_dict()["layer4.1.conv2.weight"]
    )
    copy = tmp_path / f"other{suffix}"
    copy.write_bytes(path.read_bytes())
    assert weights_identity("resnet18", str(path)) == weights_identity("resnet18", str(copy))
    copy.write_bytes(path.read_bytes() + b"x")
    assert weights_identity("resnet18", str(path)) != weights_identity("resnet18", str(copy))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    with pytest.raises(UserError, match=r"w\.pth: \d+ tensors of resnet34 are missing or of another shape"):
        create_backbone("resnet34", weights=str(path), output_stride=16)
    torch.save(timm.create_model("resnet34", pretrained=False).state_dict(), path)
    with pytest.raises(UserError, match=r"of another network than resnet18.*\(layer1\.2\.conv1\.weight"):
        create_backbone("resnet18", weights=str(path), output_stride=16)


def test_tensors_of_no_use_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(state | {"decoder.weight": torch.zeros(3)}, path)
    backbone = create_backbone("resnet18", weights=str(path), output_stride=16)
    assert (
        f"{len(state)} of {len(state) + 1} tensors fit resnet18, 1 of no use here (decoder" in backbone.fitted
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    ],
)
def test_files_that_are_no_weights_are_recognised(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UserError, match=f"w.pth: {words}.*expected a .pth"):
        create_backbone("resnet18", weights=str(tmp_path / "w.pth"), output_stride=16)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code from a weight file was run')",))


def test_no_code_is_run_from_a_weight_file(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Payload()}, path)
    with pytest.raises(UserError, match=r"evil\.pth.*expected a \.pth of tensors"):
        create_backbone("resnet18", weights=str(path), output_stride=16)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.pth: No such file.*expected imagenet, bundled"):
        weights_identity("resnet18", str(tmp_path / "nothing.pth"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"123")
    with pytest.raises(UserError, match=r"broken\.safetensors"):
        create_backbone("resnet18", weights=str(broken), output_stride=16)


def test_without_a_network_the_error_names_the_file_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model

    def offline(name: str, *, pretrained: bool, **options: Any) -> object:
        if pretrained:
            raise OSError("Name or service not known")
        return make(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError) as caught:
        create_backbone("resnet18", weights="imagenet", output_stride=16)
    for part in (
        "resnet18",
        "model.safetensors of timm/resnet18",
        "resnet18.safetensors",
        "weights of this section to PATH",
    ):
        assert part in str(caught.value)


def test_unknown_backbones_and_strides_are_refused() -> None:
    with pytest.raises(UserError, match=r"'resnet_18' is no timm model; similar: "):
        create_backbone("resnet_18", weights="none", output_stride=16)
    with pytest.raises(UserError, match="test_vit has stride 16, not 8: set output_stride=16"):
        create_backbone("test_vit", weights="none", output_stride=8)
    with pytest.raises(UserError, match=r"efficientvit_m0 has stride 64, not 32: use e\.g\. resnet50"):
        create_backbone("efficientvit_m0", weights="none", output_stride=32)
    with pytest.raises(UserError, match="takes images of one size alone; expected one such as resnet50"):
        create_backbone("beit_base_patch16_224", weights="none", output_stride=16)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride_is_the_deepest_maps(stride: int) -> None:
    backbone = create_backbone("resnet18", weights="none", output_stride=stride).eval()
    maps = backbone(torch.rand(1, 3, 64, 64))
    assert [64 // m.shape[2] for m in maps] == backbone.strides
    assert backbone.strides[-1] == stride


def test_identity_of_named_weights() -> None:
    assert weights_identity("resnet18", "none") == "none"
    assert weights_identity("resnet18", "imagenet") != weights_identity("resnet34", "imagenet")
    assert len(weights_identity(BUNDLED_BACKBONE, "bundled")) == 64


@pytest.mark.parametrize("name", [BUNDLED_BACKBONE, "resnet18", "convnext_atto"])
def test_freezing_stops_at_the_named_block(name: str) -> None:
    for blocks in range(3):
        backbone = create_backbone(name, weights="none", output_stride=32)
        backbone.freeze(blocks)
        flags = [parameter.requires_grad for parameter in backbone.features.parameters()]
        assert flags == sorted(flags)  # frozen ones first
        assert flags.count(False) > 0 if blocks else all(flags)
        maps = backbone(torch.rand(1, 3, 64, 64))
        assert [single.requires_grad for single in maps] == [k >= blocks for k in range(len(maps))]
    with pytest.raises(ValueError, match="9 frozen blocks"):
        backbone.freeze(9)


NAMED = [
    ("resnet18", 8),
    ("resnet50", 16),
    ("tf_efficientnet_lite0", 16),
    ("mobilenetv3_large_100", 16),
    ("mobilenetv3_small_100", 32),
    ("convnext_tiny", 32),
    ("hrnet_w18", 32),
    ("test_vit", 16),
    ("swin_tiny_patch4_window7_224", 32),
    ("efficientvit_b0", 32),
    ("maxvit_pico_rw_256", 32),
]
IMAGES = torch.rand(2, 3, 70, 45, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride"), NAMED)
def test_forward_backward_and_deployed(name: str, stride: int) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(name, weights="none", output_stride=stride)
    check_named(backbone, "conv", stride)
    check_named(backbone, "ushape", stride)


def check_named(backbone: Backbone, structure: Literal["conv", "ushape"], stride: int) -> None:
    plain = plain_network(
        SegmentConfig(head="light", head_channels=8, structure=structure, decoder_channels=8), 2, backbone
    )
    network = MultiExitNetwork(plain, classes=3, width=8).train()
    outputs = network(IMAGES)
    assert len(outputs.class_maps) == len(plain.channels)
    assert plain.strides[: len(backbone.strides)] == backbone.strides
    finest = 4 if backbone.parallel else stride
    assert plain.stride == (finest if structure == "conv" else backbone.strides[0])
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
