"""What turns an image into labels: the network of a finished run, or an exported one.

torch is imported only where it is used: an exported network needs none.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stages.workspace import FinishedRun, open_run
from wsss.config import Config
from wsss.crf import PRESETS, dense_crf
from wsss.errors import UserError
from wsss.resize import (
    View,
    label_map,
    label_probability,
    resize_image,
    resize_labels,
    resize_maps,
    working_size,
)
from wsss.runtime.interrupt import check
from wsss.store.files import file_sha256, is_sealed, parse_json

UInt8 = NDArray[np.uint8]
CRF_PRESET = "deeplab"
"""DeepLab's own, for the output of a segmentation network."""
CRF_ITERATIONS = 10
TILE = 1536
"""Side of a tile in pixels, unless another is asked for."""
METADATA_SCHEMA = "1"
"""Of an exported network's metadata."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How an image is predicted.

    Attributes:
        scales, flip: factors on its working size and mirror images, whose probabilities are averaged.
        max_side: a larger image is reduced to this long side first; 0: none is.
        crf, crf_max_side: whether a dense CRF follows, and the long side at which it works at most.
        tile: working images above this side are computed in tiles of it; 0: none is.
    """

    scales: Annotated[tuple[Annotated[float, Meta(gt=0, le=8)], ...], Meta(min_length=1)]
    flip: bool
    max_side: Annotated[int, Meta(ge=0)]
    crf: bool = False
    crf_max_side: Annotated[int, Meta(ge=0)]
    tile: int = TILE

    def working_size(self, image: UInt8) -> tuple[int, int]:
        """(H, W) at which the network sees an image."""
        size = (image.shape[0], image.shape[1])
        return working_size(*size, self.max_side) if self.max_side else size


@dataclass(frozen=True)
class CrfInput:
    """What a dense CRF is given: (H, W, 3) uint8, (K, H, W) float32, and the (K,) labels that these belong to."""

    image: UInt8
    probability: NDArray[np.float32]
    labels: NDArray[np.intp]


def crf_labels(given: CrfInput) -> UInt8:
    """(H, W) uint8 labels after a dense CRF."""
    posterior = dense_crf(given.image, given.probability, PRESETS[CRF_PRESET], iterations=CRF_ITERATIONS)
    return np.asarray(given.labels[posterior.argmax(0)], dtype=np.uint8)


class Predictor(ABC):
    """A network with settings.

    Attributes:
        classes: C names; label c + 1 belongs to class c.
        identity: what stands for the network in the record of settings.
    """

    classes: tuple[str, ...]
    identity: str
    settings: Settings

    @abstractmethod
    def load(self) -> None:
        """Get the network ready, after all that can be refused without it."""

    @abstractmethod
    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """(H, W, 3), uint8 or float32 in [0, 1] -> (L, h, w) float32 logits, L = C + 1."""

    def labels(self, image: UInt8, allowed: NDArray[np.bool_] | None) -> UInt8:
        """(H, W, 3) -> labels at the working size, from those that ``allowed`` (L,) names; None: all."""
        size = self.settings.working_size(image)
        return label_map(self._views(resize_image(image, size)), size, allowed=allowed)

    def probability(self, image: UInt8) -> NDArray[np.float32]:
        """(H, W, 3) -> (L, h, w) at the working size, sums to 1."""
        size = self.settings.working_size(image)
        return label_probability(self._views(resize_image(image, size)), size)

    def crf_input(self, image: UInt8, allowed: NDArray[np.bool_] | None) -> CrfInput:
        """The probabilities of the labels that win a pixel without a CRF, and of background. Arguments as `labels`."""
        working = resize_image(image, self.settings.working_size(image))
        views = self._views(working)
        size = working_size(working.shape[0], working.shape[1], self.settings.crf_max_side)
        labels = np.union1d(label_map(views, size, allowed=allowed), [0]).astype(np.intp)
        return CrfInput(resize_image(image, size), label_probability(views, size, labels), labels)

    def _views(self, image: UInt8) -> list[View]:
        mirrors = (False, True) if self.settings.flip else (False,)
        scaled = [scaled_image(image, scale) for scale in self.settings.scales]
        return [
            View(self.maps(each[:, ::-1] if mirrored else each), mirrored)
            for each in scaled
            for mirrored in mirrors
        ]


def scaled_image(image: UInt8, scale: float) -> NDArray[np.generic]:
    """The image at a scale, (H, W, 3) uint8 or float32 in [0, 1]: as `wsss.cams.resized` makes it."""
    if scale == 1:
        return image
    size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    return np.moveaxis(resize_maps(np.moveaxis(image, 2, 0) / np.float32(255), size), 0, 2)


class RunPredictor(Predictor):
    """The segmentation network of a finished run."""

    def __init__(self, run: FinishedRun, settings: Settings) -> None:
        artifact = run.artifact("segment")
        artifact.close()
        self.classes = artifact.classes
        self.identity = artifact.fingerprint
        self.settings = settings
        self._path, self._config = artifact.path, run.config

    def load(self) -> None:
        """See `Predictor`."""
        from stages.training import load_deployed
        from wsss.runtime.device import choose_device, choose_precision

        self._device = choose_device(self._config.run.device)
        self._precision = choose_precision(self._config.run, self._device)
        self.network = load_deployed(self._path, self._config.segment, len(self.classes), self._device)

    def labels(self, image: UInt8, allowed: NDArray[np.bool_] | None) -> UInt8:
        """As `Predictor.labels`; what is no larger than a tile is computed as stage segment does, bit for bit."""
        size = self.settings.working_size(image)
        if self.settings.tile and max(size) * max(self.settings.scales) > self.settings.tile:
            return super().labels(image, allowed)
        import torch

        from wsss.cams import label_probabilities
        from wsss.runtime.device import autocast

        pixels = torch.from_numpy(resize_image(image, size)).permute(2, 0, 1).float() / 255
        with autocast(self._device, self._precision), torch.inference_mode():
            probability = label_probabilities(
                self.network, pixels.to(self._device), scales=self.settings.scales, flip=self.settings.flip
            )
            if allowed is not None:
                probability[torch.from_numpy(~allowed).to(self._device)] = -1
            return np.ascontiguousarray(probability.argmax(0).to(torch.uint8).cpu().numpy())

    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Predictor`."""
        import torch

        from wsss.model.tiles import tiled_maps
        from wsss.runtime.device import autocast

        def forward(pixels: torch.Tensor) -> torch.Tensor:
            check()
            images = pixels.to(self._device).contiguous(memory_format=torch.channels_last)
            return self.network(images)  # type: ignore[no-any-return]

        tile = self.settings.tile or max(image.shape)
        with autocast(self._device, self._precision), torch.inference_mode():
            return tiled_maps(forward, image, tile=tile, strides=self.network.strides)


class OnnxPredictor(Predictor):
    """A network that `export --format onnx` wrote, run by onnxruntime: needs no run and no torch.

    Settings are those in its metadata, or ``given``; ``tile`` is not used.

    Raises:
        UserError: onnxruntime is missing, or the file is no model of this program.
    """

    def __init__(self, path: Path, **given: Any) -> None:
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
        self._path = path
        self.classes, own = self._metadata()
        self.settings = msgspec.structs.replace(own, **given)
        self.identity = f"onnx:{file_sha256(path)[:16]}"

    def load(self) -> None:
        """See `Predictor`: the session has it."""

    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Predictor`."""
        pixels = np.moveaxis(image, 2, 0)[None].astype(np.float32)
        batch = np.ascontiguousarray(pixels / np.float32(255) if image.dtype == np.uint8 else pixels)
        try:
            result: NDArray[np.float32] = self._session.run(["maps"], {"images": batch})[0][0]
        except Exception as error:  # onnxruntime raises its own kinds, which share no base
            raise UserError(f"--onnx {self._path}: cannot be run ({_reason(error)})") from None
        return result

    def _metadata(self) -> tuple[tuple[str, ...], Settings]:
        try:
            texts = dict(self._session.get_modelmeta().custom_metadata_map)
            if texts.get("wsss") != METADATA_SCHEMA:
                raise UserError(
                    f"--onnx {self._path}: lacks the metadata of this program (wsss = {METADATA_SCHEMA}); "
                    "expected what `export RUN --format onnx` wrote"
                )
            names = ("scales", "flip", "max_side", "crf_max_side")
            settings = msgspec.convert({name: msgspec.json.decode(texts[name]) for name in names}, Settings)
            return msgspec.json.decode(texts["classes"], type=tuple[str, ...]), settings
        except (KeyError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            raise UserError(
                f"--onnx {self._path}: its metadata is missing or damaged ({error}); export it again"
            ) from None


class OpenRun:
    """A finished run from Python: what `wsss.open_run` gives.

    Args:
        folder: the run's, such as ``runs/mine``.
        overrides: ``run.key=value`` texts: where it is computed.

    Attributes:
        name: of the run.
        classes: C names; label c + 1 belongs to class c.

    Raises:
        UserError: no such run, or nothing to predict with; the message names the command that computes it.
    """

    def __init__(self, folder: Path, overrides: Sequence[str] = ()) -> None:
        folder = folder.expanduser().resolve()
        self._run = open_run(folder.parent, folder.name, overrides)
        self._predictor = RunPredictor(self._run, run_settings(self._run.config))
        self.name, self.classes = self._run.name, self._predictor.classes

    def predict(self, image: UInt8) -> tuple[UInt8, NDArray[np.float32]]:
        """The labels that the command `predict` writes, and how probable each label is.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) uint8, 0 background, c + 1 class c; (C + 1, H, W) float32, sums to 1.

        Raises:
            ValueError: another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image: {image.dtype} {image.shape}; expected uint8 (height, width, 3), RGB")
        size, network = (image.shape[0], image.shape[1]), self._loaded
        return resize_labels(network.labels(image, None), size), resize_maps(network.probability(image), size)

    @cached_property
    def _loaded(self) -> RunPredictor:
        self._predictor.load()
        return self._predictor

    def masks(self) -> Iterator[tuple[str, UInt8]]:
        """Id and pseudo-mask (H, W) uint8 of every training image, 255 uncertain. Raises UserError: it has none."""
        with closing(self._run.artifact("refine")) as artifact:
            for image_id in artifact.ids:
                yield image_id, artifact.read(image_id, "masks")

    def report(self) -> dict[str, Any]:
        """What report.json says (docs/report.md). Raises UserError: it is not there or damaged."""
        path = self._run.run.folder / "report.json"
        if not path.exists() or not is_sealed(path):
            raise UserError(f"{path}: not there, or damaged; `run_pipeline.py report {self.name}` writes it")
        values: dict[str, Any] = parse_json(path.read_bytes())
        return values


def run_settings(config: Config, **given: Any) -> Settings:
    """The settings of a run's configuration, with what is given in their place."""
    own: dict[str, Any] = {
        "scales": config.segment.test_scales,
        "flip": config.segment.test_flip,
        "max_side": config.segment.max_side,
        "crf_max_side": config.refine.max_side,
    }
    return Settings(**(own | given))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
