"""A segmentation network as an ONNX graph of any batch, height and width.

Input ``images`` (B, 3, H, W) float32 RGB in [0, 1]; the normalisation is inside the graph. Outputs: ``logits``
(B, L, H, W) at the input's size, bilinear, and ``maps`` (B, L, h, w), the same at the network's stride, for those
who average scales or have little memory. Channel 0 is background.
"""

import copy
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError
from wsss.model.multi_exit import PlainNetwork

from timm.layers.conv2d_same import Conv2dSame  # isort: skip - after wsss.model.backbone

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""The smallest that torch's exporter writes without converting."""
_DIMENSIONS = {
    "images": ("batch", None, "height", "width"),
    "logits": ("batch", None, "height", "width"),
    "maps": ("batch", None, "map_height", "map_width"),
}


class _Graph(nn.Module):
    """What is exported: the network, and its maps brought to the input's size."""

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> logits (B, L, H, W), maps (B, L, h, w)."""
        maps = self.network(images)
        return F.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False), maps


class _SameConvolution(nn.Module):
    """TensorFlow's "same" convolution as the one ONNX node that means it.

    Traced as it is, its padding becomes arithmetic on sizes, nested once per block: five times slower to
    export (161 s against 32 s for tf_efficientnet_lite0), and nodes that a runtime cannot fuse.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight
        self.bias = convolution.bias
        self.attributes: dict[str, Any] = {
            "auto_pad": "SAME_UPPER",
            "strides": list(convolution.stride),
            "dilations": list(convolution.dilation),
            "group": convolution.groups,
        }

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D', ceil(h / stride), ceil(w / stride))."""
        sides = zip(features.shape[2:], self.attributes["strides"], strict=True)
        shape = [features.shape[0], len(self.weight), *((side + step - 1) // step for side, step in sides)]
        inputs = [features, self.weight] + ([] if self.bias is None else [self.bias])
        return torch.onnx.ops.symbolic(
            "Conv", inputs, self.attributes, dtype=features.dtype, shape=shape, version=OPSET
        )


def onnx_model(network: PlainNetwork, metadata: Mapping[str, str]) -> "onnx.ModelProto":
    """Trace a network.

    Args:
        network: in evaluation mode; it stays as it is.
        metadata: written into the model.

    Returns:
        The checked model. The same network gives the same bytes: traces of the exporter's own files are taken out.

    Raises:
        UserError: onnx or onnxscript is not installed, or the network has an operation that ONNX lacks.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter imports it
    except ImportError as error:
        raise UserError(
            f"export to ONNX needs the package {error.name}: pip install onnx onnxscript onnxruntime "
            "(the extra `onnx` of pyproject.toml)"
        ) from None
    graph = _Graph(copy.deepcopy(network).cpu().to(memory_format=torch.contiguous_format)).eval()  # type: ignore[call-overload]
    _replace_same_convolutions(graph)
    dynamic = torch.export.Dim.DYNAMIC
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter says of itself
        try:
            program = torch.onnx.export(
                graph,
                (
                    torch.zeros(2, 3, 130, 97),
                ),  # sides that divide by nothing: no size is taken for a constant
                dynamo=True,
                dynamic_shapes={"images": {0: dynamic, 2: dynamic, 3: dynamic}},
                opset_version=OPSET,
                input_names=["images"],
                output_names=["logits", "maps"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "unknown reason")
            raise UserError(
                f"export to ONNX: this network cannot be exported ({reason.strip()[:200]})"
            ) from None
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = program.model_proto
    _clean(model)
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    return model


def _replace_same_convolutions(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            setattr(module, name, _SameConvolution(child))
        else:
            _replace_same_convolutions(child)


def _clean(model: "onnx.ModelProto") -> None:
    """Name the dimensions, and drop traces of source files (they hold paths of this machine) and inner shapes."""
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.graph.name = "segmentation"
    for item in [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for value in [*model.graph.input, *model.graph.output]:
        dimensions = value.type.tensor_type.shape.dim
        for dimension, name in zip(dimensions, _DIMENSIONS[value.name], strict=True):
            if name is not None:
                dimension.dim_param = name
