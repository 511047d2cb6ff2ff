"""An exported network, run by onnxruntime. The only importer of onnxruntime; needs no torch."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.errors import UserError
from wsss.store.json_files import parse_json

METADATA_SCHEMA = "1"


class OnnxNetwork:
    """A model that `export --format onnx` wrote.

    Args:
        path: the file.

    Attributes:
        classes: C names; channel c + 1 of the outputs belongs to class c.
        metadata: what the model says of itself, texts by name.

    Raises:
        UserError: onnxruntime is missing, or the file is no model of this program.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                "--onnx needs the package onnxruntime: pip install onnxruntime (the extra `onnx` of pyproject.toml)"
            ) from None
        if not path.is_file():
            raise UserError(f"--onnx {path}: no such file; expected what `export RUN --format onnx` wrote")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)  # 0: all cores
        options.log_severity_level = 3  # errors; the CPU's unused providers are no news
        usable = {"CUDAExecutionProvider", "CPUExecutionProvider"}
        providers = [name for name in onnxruntime.get_available_providers() if name in usable]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime raises its own kinds, which share no base
            raise UserError(f"--onnx {path}: cannot be loaded ({_reason(error)})") from None
        try:
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError as error:
            raise UserError(f"--onnx {path}: its metadata is damaged ({error}); export it again") from None
        if self.metadata.get("wsss") != METADATA_SCHEMA:
            raise UserError(
                f"--onnx {path}: lacks the metadata of this program (wsss = {METADATA_SCHEMA}); "
                "expected what `export RUN --format onnx` wrote"
            )
        self.path = path
        classes = self.value("classes")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise self._damaged("classes")
        self.classes: tuple[str, ...] = tuple(classes)

    def value(self, name: str) -> Any:
        """A metadata entry, read as JSON. Raises UserError where it is missing or none."""
        try:
            return parse_json(self.metadata[name])
        except (KeyError, ValueError):
            raise self._damaged(name) from None

    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """(H, W, 3), uint8 in 0..255 or float32 in [0, 1] -> (L, h, w) float32 logits at the network's stride."""
        pixels = np.moveaxis(image, 2, 0)[None].astype(np.float32)
        batch = np.ascontiguousarray(pixels / np.float32(255) if image.dtype == np.uint8 else pixels)
        try:
            result: NDArray[np.float32] = self._session.run(["maps"], {"images": batch})[0][0]
        except Exception as error:  # onnxruntime raises its own kinds, which share no base
            raise UserError(f"--onnx {self.path}: cannot be run ({_reason(error)})") from None
        if result.ndim != 3 or len(result) != len(self.classes) + 1:
            raise UserError(
                f"--onnx {self.path}: maps are {list(result.shape)}, expected {len(self.classes) + 1} for the "
                "classes and background; export it again"
            )
        return result

    def _damaged(self, name: str) -> UserError:
        return UserError(f"--onnx {self.path}: its metadata '{name}' is missing or damaged; export it again")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
