"""A linear classifier of feature cells, fitted to the seeds of all images at once in closed form.

A classification network learns from images: a class map need be high in one place only, and nothing tells it what
the rest of the image is. The seeds tell: every cell inside one is an example of its class, every cell far outside an
example of background, and in images without a tag every cell is, without doubt, no example of its class. Least squares
over all these cells (with one-hot targets this is Fisher's linear discriminant; Hastie, Tibshirani, Friedman, *The
Elements of Statistical Learning*, section 4.2 and exercise 4.2) averages out what single seeds get wrong. It needs sums
alone: one pass, no steps, no learning rate, the same whatever the order of the images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wsss import IGNORE
from wsss.affinity import on_grid

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

CONFIDENT = (0.3, 0.6)
"""A cell whose strongest CAM is below the first is background, from the second on of that class; else unlabelled."""
RIDGE = 0.01
"""Penalty on each weight as a share of its feature's variance."""
ROUNDING = 1e-6
"""A variance below this share of the mean square is what float32 sums leave of none."""


def cell_labels(maps: Tensor, classes: Tensor, *, confident: tuple[float, float] = CONFIDENT) -> Tensor:
    """What an image's CAMs say with confidence about its cells.

    Args:
        maps: (K, h, w) in [0, 1]; K may be 0: an image without tags is background all over.
        classes: (K,) int64 classes 0..C-1 of the maps.
        confident: background below the first, the strongest class from the second on.

    Returns:
        (h, w) int64: 0 background, c + 1 class c, 255 unlabelled.
    """
    if not len(maps):
        return torch.zeros(maps.shape[1:], dtype=torch.long, device=maps.device)
    value, index = maps.max(0)
    labels = torch.where(value >= confident[1], classes[index] + 1, IGNORE)
    return torch.where(value < confident[0], 0, labels)


def cell_features(blocks: Sequence[Tensor]) -> Tensor:
    """(D_b, h_b, w_b) per block -> (sum of D_b, h, w) float32 on the grid of the first of them."""
    grid = blocks[0].shape[1:]
    return torch.cat([on_grid(block.float(), grid) for block in blocks])


@dataclass(frozen=True)
class CellClassifier:
    """Scores of every label from a cell's features: ``weight @ f + bias``; about a probability, sums to 1.

    Attributes:
        weight: (L, D) float32.
        bias: (L,) float32.
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def from_arrays(cls, arrays: Arrays, device: torch.device) -> "CellClassifier":
        """What `arrays` gave, on a device."""
        return cls(*(torch.from_numpy(arrays[name]).to(device) for name in ("weight", "bias")))

    def arrays(self) -> Arrays:
        """As numpy arrays, to be stored."""
        return {"weight": self.weight.numpy(), "bias": self.bias.numpy()}

    def scores(self, features: Tensor) -> Tensor:
        """(D, h, w) -> (L, h, w) float32."""
        flat = features.float().flatten(1)
        return (self.weight @ flat + self.bias[:, None]).reshape(-1, *features.shape[1:])


@dataclass(frozen=True)
class CellStatistics:
    """The sums that a `CellClassifier` is made of; float64 on the CPU, ``+`` adds what other images gave.

    Attributes:
        gram: (D + 1, D + 1) sum of x x^T, x being a cell's features and a 1.
        targets: (D + 1, L) sum of x y^T, y being its label's one-hot vector.
    """

    gram: Tensor
    targets: Tensor

    @classmethod
    def none(cls, count: int) -> "CellStatistics":
        """Those of no image, with any number of features, and ``count`` labels."""
        return cls(torch.zeros(1, 1, dtype=torch.double), torch.zeros(1, count, dtype=torch.double))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "CellStatistics":
        """What `arrays` gave."""
        return cls(torch.from_numpy(arrays["gram"]), torch.from_numpy(arrays["targets"]))

    def arrays(self) -> Arrays:
        """As numpy arrays, to be stored."""
        return {"gram": self.gram.numpy(), "targets": self.targets.numpy()}

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, count: int) -> "CellStatistics":
        """Those of one image.

        Args:
            features: (D, h, w).
            labels: (h, w) int64 0..L-1, or 255: not counted.
            count: L.
        """
        chosen = labels != IGNORE
        cells = features[:, chosen].float()  # (D, M)
        cells = torch.cat([cells, cells.new_ones(1, cells.shape[1])])
        one_hot = F.one_hot(labels[chosen], count).float()  # (M, L)
        return cls((cells @ cells.T).double().cpu(), (cells @ one_hot).double().cpu())

    def __add__(self, other: "CellStatistics") -> "CellStatistics":
        return CellStatistics(self.gram + other.gram, self.targets + other.targets)

    def classifier(self, ridge: float = RIDGE) -> CellClassifier:
        """The least squares fit, each feature's weight penalised by ``ridge`` times the feature's variance.

        A feature's unit does not matter, nor an offset; the bias is not penalised.

        Raises:
            ValueError: no cell was counted.
        """
        cells = self.gram[-1, -1]
        if not cells:
            raise ValueError("expected at least one labelled cell")
        mean, shares = self.gram[:-1, -1] / cells, self.targets[-1] / cells
        covariance = self.gram[:-1, :-1] / cells - mean[:, None] * mean
        cross = self.targets[:-1] / cells - mean[:, None] * shares
        variance = covariance.diagonal().clamp(min=0)
        varies = variance > ROUNDING * (mean**2 + variance)
        scale = (
            torch.where(varies, variance, 0).rsqrt().nan_to_num(posinf=0.0)
        )  # no weight for what is constant
        correlation = scale[:, None] * covariance * scale + ridge * torch.eye(len(scale), dtype=scale.dtype)
        weight = (scale[:, None] * torch.linalg.solve(correlation, scale[:, None] * cross)).T
        return CellClassifier(weight.float(), (shares - weight @ mean).float())
