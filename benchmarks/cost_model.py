"""What a stage costs, as a sum of a few products: the arithmetic of `benchmarks.scaling`.

    cost = start + sum over the stage's drivers of (price x driver)

A driver is something that there is more of in a larger job: megapixels to decode, pixels of training crops, labels x
iterations of the CRF. It is linear in the number of images. Prices come from a few small runs, by least squares over
relative errors with no price below zero, so that no size can be predicted to cost less than nothing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

COMMANDS = ("classify", "cams", "refine", "segment", "report", "status")
"""What is measured: four stages, each with the measures that its command takes; all measures and the report by
themselves; and what every command begins with, opening the data set."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """All that a run's cost depends on.

    Attributes:
        train: training images.
        val: validation images.
        megapixels: of a photograph.
        tags: per image.
        classes: C.
        scales: of the CAMs; every one is run mirrored too.
        crops: sides of the training crops of classify and segment.
        epochs: of classify and segment.
        batch: of both.
        iterations: of the CRF.
    """

    train: int
    val: int
    megapixels: float = 0.1875
    tags: float = 2.0
    classes: int = 20
    scales: tuple[float, ...] = (1.0, 1.5)
    crops: tuple[int, int] = (256, 192)
    epochs: tuple[int, int] = (1, 1)
    batch: int = 16
    iterations: int = 10

    @property
    def images(self) -> int:
        """Of both splits."""
        return self.train + self.val

    @property
    def measured(self) -> int:
        """Images that the measures look at: training images of cams and refine, validation images of segment."""
        return 2 * self.train + self.val

    @property
    def area(self) -> float:
        """Pixels that the network sees for CAMs, as a multiple of the photograph's."""
        return 2 * sum(scale**2 for scale in self.scales)

    def views(self, stage: int) -> int:
        """Training views of classify (0) or segment (1); what is left of an epoch is no step."""
        steps = max(1, self.train // self.batch)
        return self.epochs[stage] * steps * min(self.batch, self.train)

    def cropped(self, stage: int) -> float:
        """Megapixels of these views."""
        return self.views(stage) * self.crops[stage] ** 2 / 1e6


Driver = Callable[[Workload], float]

SECONDS: Mapping[str, Mapping[str, Driver]] = {
    "classify": {
        "Mpx of training crops": lambda w: w.cropped(0),
        "Mpx decoded": lambda w: (w.images + w.views(0)) * w.megapixels,
    },
    "cams": {
        "Mpx through the network": lambda w: w.train * w.megapixels * w.area,
        "Mpx x tags": lambda w: w.train * w.megapixels * w.tags,
        "images x classes": lambda w: w.train * w.classes,
        "images": lambda w: w.train,
    },
    "refine": {
        "Mpx": lambda w: w.train * w.megapixels,
        "Mpx x labels x iterations": lambda w: w.train * w.megapixels * (w.tags + 1) * w.iterations,
        "images x classes": lambda w: w.train * w.classes,
    },
    "segment": {
        "Mpx of training crops": lambda w: w.cropped(1),
        "Mpx of training crops x classes": lambda w: w.cropped(1) * w.classes,
        "Mpx decoded": lambda w: w.views(1) * w.megapixels,
        "Mpx predicted": lambda w: w.val * w.megapixels,
    },
    "report": {
        "Mpx": lambda w: w.measured * w.megapixels,
        "Mpx x tags": lambda w: w.measured * w.megapixels * w.tags,
        "images x classes": lambda w: w.measured * w.classes,
    },
    "status": {"images": lambda w: w.images},
}
BYTES: Mapping[str, Mapping[str, Driver]] = {
    "classify": {"classes": lambda w: w.classes},
    "cams": {
        "images": lambda w: w.train,
        "Mpx x tags": lambda w: w.train * w.megapixels * w.tags,
        "images x classes": lambda w: w.train * w.classes,
    },
    "refine": {"images": lambda w: w.train, "Mpx": lambda w: w.train * w.megapixels},
    "segment": {
        "classes": lambda w: w.classes,
        "images": lambda w: w.val,
        "Mpx": lambda w: w.val * w.megapixels,
    },
    "report": {"images": lambda w: w.measured, "images x tags": lambda w: w.measured * w.tags},
    "status": {"images": lambda w: w.images},
}


@dataclass(frozen=True)
class Cost:
    """A fitted cost.

    Attributes:
        start: what it costs whatever the size.
        prices: by driver, what one of it costs.
    """

    start: float
    prices: Mapping[str, float]

    def predict(self, drivers: Mapping[str, Driver], workload: Workload) -> float:
        """The cost of a workload."""
        return self.start + sum(price * drivers[name](workload) for name, price in self.prices.items())


def fit(drivers: Mapping[str, Driver], measured: Sequence[tuple[Workload, float]]) -> Cost:
    """Start and prices that are least wrong in relation to what was measured, none of them negative.

    Args:
        drivers: of the stage.
        measured: workloads and what each cost, above zero.
    """
    rows = np.array([[1.0, *(driver(workload) for driver in drivers.values())] for workload, _ in measured])
    values = np.array([value for _, value in measured])
    weighted = rows / values[:, None]
    sizes = np.maximum(np.abs(weighted).max(0), np.finfo(float).tiny)  # drivers differ by orders of magnitude
    found, _ = nnls(weighted / sizes, np.ones(len(values)))
    start, *prices = (found / sizes).tolist()
    return Cost(start, dict(zip(drivers, prices, strict=True)))


def per_image(cost: Cost, drivers: Mapping[str, Driver], workload: Workload) -> float:
    """What one more training image of this kind costs, its share of validation included."""
    return (cost.predict(drivers, workload) - cost.start) / workload.train


def readable_bytes(count: float) -> str:
    """Bytes in the largest unit of which there is at least one: ``1.5 GiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0 if count < 1 else min(int(math.log(count, 1024)), len(units) - 1)
    return f"{count / 1024**power:.4g} {units[power]}"
