"""Let a torchvision built for CUDA be imported beside a CPU build of torch.

On package indexes torchvision is a CUDA build. Beside a CPU torch its import fails with "operator
torchvision::nms does not exist", and so do timm and everything else that imports it. Import this module
before any of them. On exactly that error the two missing operator schemas are declared (nothing here calls
them) and the import is tried again; a healthy install is left alone, as it refuses a second definition.
"""

import importlib
import sys

import torch

_library: "torch.library.Library | None" = None  # the definitions live as long as this reference


def ensure_torchvision() -> None:
    """Import torchvision, declaring the missing operators where that is what stands in the way."""
    global _library
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")


ensure_torchvision()
