"""What turns a photograph into labels: the run's network, or an exported one.

torch is imported only where it is used: an exported network needs none.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.commands.finished import FinishedRun
from wsss.config import Config
from wsss.crf import PRESETS, dense_crf
from wsss.errors import UserError
from wsss.onnx_network import OnnxNetwork
from wsss.resize import View, label_map, label_probability, resize_image, resize_maps, working_size
from wsss.store.artifacts import Artifact

if TYPE_CHECKING:
    import torch

    from wsss.model.multi_exit import PlainNetwork

UInt8 = NDArray[np.uint8]
CRF_PRESET = "deeplab"
"""DeepLab's own, for the output of a segmentation network."""
CRF_ITERATIONS = 10
TILE = 1536
"""Side of a tile in pixels, unless another is asked for."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a photograph is predicted.

    Attributes:
        scales: factors on its working size, whose probabilities are averaged.
        flip: also the mirror image.
        max_side: a larger photograph is reduced to this long side first; 0: none is.
        crf: whether a dense CRF follows.
        crf_max_side: long side at which it works at most.
        tile: side of a tile's core; larger working images are computed in tiles. 0: none is.
    """

    scales: tuple[float, ...]
    flip: bool
    max_side: int
    crf: bool
    crf_max_side: int
    tile: int

    def working_size(self, image: UInt8) -> tuple[int, int]:
        """(H, W) at which the network sees a photograph."""
        size = (image.shape[0], image.shape[1])
        return working_size(*size, self.max_side) if self.max_side else size


@dataclass(frozen=True)
class CrfTask:
    """What the dense CRF is left to do on one image, small enough to be sent to a process.

    Attributes:
        image: (H, W, 3) uint8.
        probability: (K, H, W) float32 of the labels that occur.
        labels: (K,) their mask values.
    """

    image: UInt8
    probability: NDArray[np.float32]
    labels: NDArray[np.intp]

    def __call__(self) -> UInt8:
        """(H, W) uint8 labels."""
        posterior = dense_crf(self.image, self.probability, PRESETS[CRF_PRESET], iterations=CRF_ITERATIONS)
        return np.asarray(self.labels[posterior.argmax(0)], dtype=np.uint8)


class Predictor(ABC):
    """A network with settings.

    Attributes:
        classes: C names; mask value c + 1 belongs to class c.
        identity: what stands for the network in the record of settings.
        settings: see `Settings`.
        notes: what the user should know, a sentence each.
    """

    classes: tuple[str, ...]
    identity: str
    settings: Settings
    notes: tuple[str, ...] = ()

    @abstractmethod
    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """(H, W, 3), uint8 or float32 in [0, 1] -> (L, h, w) float32 logits."""

    def labels(self, image: UInt8, allowed: NDArray[np.bool_] | None) -> UInt8:
        """Labels at the working size.

        Args:
            image: (H, W, 3) the photograph.
            allowed: (L,) the labels to choose from; None: all.
        """
        working = resize_image(image, self.settings.working_size(image))
        return label_map(self._views(working), (working.shape[0], working.shape[1]), allowed=allowed)

    def crf_task(self, image: UInt8, allowed: NDArray[np.bool_] | None) -> CrfTask:
        """The CRF's share of the work: the labels that win a pixel without it, and background."""
        working = resize_image(image, self.settings.working_size(image))
        views = self._views(working)
        size = working_size(working.shape[0], working.shape[1], self.settings.crf_max_side)
        labels = np.union1d(label_map(views, size, allowed=allowed), [0]).astype(np.intp)
        return CrfTask(resize_image(image, size), label_probability(views, size, labels), labels)

    def _views(self, image: UInt8) -> list[View]:
        views = []
        for scaled in scaled_images(image, self.settings.scales):
            for mirrored in (False, True) if self.settings.flip else (False,):
                views.append(View(self.maps(scaled[:, ::-1] if mirrored else scaled), mirrored))
        return views


def scaled_images(image: UInt8, scales: Sequence[float]) -> Iterator[NDArray[np.generic]]:
    """The image at each scale, (H, W, 3) uint8 or float32 in [0, 1]: as `wsss.cams.resized` makes it."""
    for scale in scales:
        if scale == 1:
            yield image
            continue
        size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
        planes = [resize_maps(image[None, :, :, c].astype(np.float32) / 255, size)[0] for c in range(3)]
        yield np.moveaxis(np.stack(planes), 0, 2)


class RunPredictor(Predictor):
    """The segmentation network of a finished run.

    Args:
        run: the run.
        settings: how to predict.
    """

    def __init__(self, run: FinishedRun, settings: Settings) -> None:
        from wsss.model.tiles import TiledNetwork
        from wsss.runtime.device import choose_device, choose_precision

        artifact = run.artifact("segment")
        artifact.close()
        self.classes = artifact.classes
        self.identity = artifact.fingerprint
        self.settings = settings
        device = choose_device(run.config.run.device)
        self._network = segmenter(run, artifact, device)
        self._device = device
        self._precision = choose_precision(run.config.run, device)
        self._tiled = TiledNetwork(
            self._network, device=device, precision=self._precision, tile=settings.tile or 1 << 30
        )
        if self._tiles_possible() and not self._tiled.exact:
            self.notes = (
                f"backbone {run.config.segment.backbone} sees the whole photograph at once (attention or global "
                f"pooling): a photograph above {settings.tile} pixels is computed in tiles that do not see "
                "each other",
            )

    def _tiles_possible(self) -> bool:
        """Whether some photograph could be computed in tiles."""
        settings = self.settings
        side = settings.max_side * max(settings.scales)
        return settings.tile > 0 and (settings.max_side == 0 or side > settings.tile)

    def labels(self, image: UInt8, allowed: NDArray[np.bool_] | None) -> UInt8:
        """As `Predictor.labels`; what fits in memory at once is computed as stage segment does, bit for bit."""
        size = self.settings.working_size(image)
        if self.settings.tile and max(size) * max(self.settings.scales) > self.settings.tile:
            return super().labels(image, allowed)
        import torch

        from wsss.cams import label_probabilities
        from wsss.resize import best_label
        from wsss.runtime.device import autocast

        pixels = torch.from_numpy(resize_image(image, size)).permute(2, 0, 1).float() / 255
        with autocast(self._device, self._precision), torch.inference_mode():
            probability = label_probabilities(
                self._network, pixels.to(self._device), scales=self.settings.scales, flip=self.settings.flip
            )
        if allowed is None:
            return np.ascontiguousarray(probability.argmax(0).to(torch.uint8).cpu().numpy())
        return best_label(probability.cpu().numpy(), allowed)

    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Predictor`."""
        return self._tiled.maps(image)


class OnnxPredictor(Predictor):
    """An exported network: no run, no torch.

    Args:
        network: the model.
        settings: how to predict; ``tile`` is not used, the graph sees a working image at once.
        identity: stands for the model file.
    """

    def __init__(self, network: OnnxNetwork, settings: Settings, identity: str) -> None:
        self.network = network
        self.classes = network.classes
        self.settings = settings
        self.identity = identity

    def maps(self, image: NDArray[np.generic]) -> NDArray[np.float32]:
        """See `Predictor`."""
        return self.network.maps(image)


def segmenter(run: FinishedRun, artifact: Artifact, device: "torch.device") -> "PlainNetwork":
    """The deployed network of a run's segment artifact, in evaluation mode on the device."""
    from stages.training import load_deployed

    return load_deployed(artifact.path, run.config.segment, len(artifact.classes), device)


def run_settings(config: Config, overrides: dict[str, Any]) -> Settings:
    """The settings of a run's configuration, with what the user gave in their place."""
    own: dict[str, Any] = {
        "scales": config.segment.test_scales,
        "flip": config.segment.test_flip,
        "max_side": config.segment.max_side,
        "crf_max_side": config.refine.max_side,
    }
    return Settings(**(own | overrides))


def onnx_settings(network: OnnxNetwork, overrides: dict[str, Any]) -> Settings:
    """The settings in a model's metadata, with what the user gave in their place."""
    scales, flip, *sides = (network.value(name) for name in ("scales", "flip", "max_side", "crf_max_side"))
    numbers = isinstance(scales, list) and all(
        type(scale) in (int, float) and 0 < scale <= 8 for scale in scales
    )
    if not (
        numbers and scales and type(flip) is bool and all(type(side) is int and side >= 0 for side in sides)
    ):
        raise UserError(
            f"--onnx {network.path}: its metadata scales, flip, max_side or crf_max_side is damaged; export it again"
        )
    own = {"scales": tuple(scales), "flip": flip, "max_side": sides[0], "crf_max_side": sides[1]}
    return Settings(**(own | overrides))
