"""From samples to tensors: training views and whole images.

Randomness is a function of (seed, epoch, image): the same views come whatever the number of workers, and
training resumed in the middle sees what it would have seen.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data import Sample
from data.images import UInt8, read_image
from wsss import IGNORE
from wsss.config import SegmentConfig, TrainConfig
from wsss.errors import UserError
from wsss.resize import resize_image, resize_labels, working_size
from wsss.runtime import distributed
from wsss.runtime.pool import require_descriptors, serve_parent, shielded
from wsss.store.artifacts import Artifact
from wsss.train import Batch, batch_indices

from torchvision.transforms.v2 import functional as TF  # isort: skip - after wsss.model.backbone

PADDING_GREY = 127

MaskSource: TypeAlias = Callable[[Sample], UInt8]
"""Gives the labels (H, W) of a training image, 255 ignored; picklable."""


def pseudo_mask(artifact: Artifact, sample: Sample) -> UInt8:
    """The labels (H, W) of an image in the refine stage's artifact."""
    return np.asarray(artifact.read(sample.id, "masks"), dtype=np.uint8)


def ground_truth(sample: Sample) -> UInt8:
    """The labels (H, W) of an image in the data set's own mask, corrected: full supervision alone."""
    if sample.mask is None:
        raise ValueError(f"{sample.id} has no mask")
    return sample.corrected(sample.mask.read())


class TrainingViews(Dataset[tuple[str, Tensor, Tensor, Tensor | None]]):
    """Random views of training images: resized, cropped, mirrored, jittered.

    Args:
        samples: the images.
        classes: C.
        config: sizes and augmentations.
        seed: of all random choices.
        masks: where labels come from, or None for image-level training.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: int,
        config: TrainConfig,
        seed: int,
        masks: MaskSource | None,
    ) -> None:
        self.samples = samples
        self.classes = classes
        self.config = config
        self.seed = seed
        self.masks = masks

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[str, Tensor, Tensor, Tensor | None]:
        """(epoch, index) -> id, image (3, crop, crop) float32 in [0, 1], tags (C,), labels (crop, crop) uint8."""
        epoch, index = key
        sample = self.samples[index]
        random = np.random.default_rng([self.seed, epoch, index])
        tags = torch.zeros(self.classes)
        tags[list(sample.tags)] = 1
        labels = self.masks(sample) if self.masks else None
        image, target = random_view(read_image(sample.image), labels, self.config, random)
        return sample.id, image, tags, target


def random_view(
    image: UInt8,
    labels: UInt8 | None,
    config: TrainConfig,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor | None]:
    """One training view.

    The image is resized by a factor drawn from ``config.zoom``, or to a long side drawn from ``config.long_side``,
    padded with grey (labels with 255) and cropped to ``config.crop`` at a random place (with ``labelled_crops`` of a
    `SegmentConfig` on a labelled pixel), mirrored half of the time, and jittered in colour.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8 or None.
        config: sizes and augmentations.
        random: draws every choice.

    Returns:
        (3, crop, crop) float32 in [0, 1], and (crop, crop) uint8 or None.
    """
    if config.zoom:
        factor = float(np.exp(random.uniform(*np.log(config.zoom))))  # as often halved as doubled
    else:
        factor = int(random.integers(config.long_side[0], config.long_side[1] + 1)) / max(image.shape[:2])
    size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    resized = None if labels is None else resize_labels(labels, size)
    corner = (_offset(size[0], config.crop, random), _offset(size[1], config.crop, random))
    share = config.labelled_crops if isinstance(config, SegmentConfig) else 0.0
    if resized is not None and share and random.random() < share:
        corner = _on_labelled_pixel(resized, config.crop, random) or corner
    step = -1 if config.flip and random.random() < 0.5 else 1
    window = _window(resize_image(image, size), config.crop, corner, PADDING_GREY)[:, ::step]
    view = torch.from_numpy(np.ascontiguousarray(window)).permute(2, 0, 1).float() / 255
    if config.jitter:
        for adjust in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
            view = adjust(view, float(random.uniform(1 - config.jitter, 1 + config.jitter)))
    if resized is None:
        return view, None
    target = _window(resized, config.crop, corner, IGNORE)[:, ::step]
    return view, torch.from_numpy(np.ascontiguousarray(target))


def training_batches(views: TrainingViews, first: int, steps: int, workers: int) -> Iterator[Batch]:
    """Yield this process's part of the batches of steps ``first`` to ``steps``, loaded by ``workers`` processes."""
    whole = batch_indices(len(views), views.config.batch, views.seed, first, steps)
    order = (batch[distributed.part(len(batch))] for batch in whole)  # drawn as it is needed, epoch by epoch
    loader = DataLoader(
        views,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collated,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=serve_parent,
    )
    if workers:
        require_descriptors(workers)
    try:
        with shielded():  # the workers start here
            batches = iter(loader)
        yield from batches
    except UserError as error:  # of a worker: torch puts a traceback before its words
        raise UserError(str(error).rpartition(f"{UserError.__name__}: ")[2].strip()) from None


def whole_image(sample: Sample, max_side: int) -> Tensor:
    """(3, H, W) float32 in [0, 1] at the working size (see `working_size`)."""
    image = read_image(sample.image)
    image = resize_image(image, working_size(image.shape[0], image.shape[1], max_side))
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def _offset(side: int, crop: int, random: np.random.Generator) -> int:
    """Where the crop begins along one side; negative where the image is smaller and will be padded."""
    slack = side - crop
    return int(random.integers(min(slack, 0), max(slack, 0) + 1))


def _on_labelled_pixel(labels: UInt8, crop: int, random: np.random.Generator) -> tuple[int, int] | None:
    """Where a crop begins that holds a pixel of a drawn class, inside the image; None where only background is."""
    classes = np.unique(labels[(labels != 0) & (labels != IGNORE)])
    if not len(classes):
        return None
    rows, columns = np.nonzero(labels == random.choice(classes))
    chosen = random.integers(len(rows))
    begins = []
    for pixel, side in zip((rows[chosen], columns[chosen]), labels.shape, strict=True):
        slack = side - crop
        begin = int(pixel) - int(random.integers(crop))
        begins.append(min(max(begin, min(slack, 0)), max(slack, 0)))
    return begins[0], begins[1]


def _window(array: UInt8, crop: int, corner: tuple[int, ...], fill: int) -> UInt8:
    """The square window of an array that begins at a corner (top, left), filled where it reaches outside."""
    window = np.full((crop, crop, *array.shape[2:]), fill, dtype=np.uint8)
    inside = [slice(max(start, 0), start + crop) for start in corner]
    there = array[tuple(inside)]
    top, left = (max(-start, 0) for start in corner)
    window[top : top + there.shape[0], left : left + there.shape[1]] = there
    return window


def _collated(items: list[tuple[str, Tensor, Tensor, Tensor | None]]) -> Batch:
    ids, images, tags, labels = zip(*items, strict=True)
    known = [label for label in labels if label is not None]
    return Batch(list(ids), torch.stack(images), torch.stack(tags), torch.stack(known) if known else None)
