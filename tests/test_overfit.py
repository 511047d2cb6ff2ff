"""Both structures learn: a handful of drawn images by heart, with every loss on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.networks import tiny_segmenter
from wsss.cams import label_probabilities
from wsss.config import SegmentConfig
from wsss.model.multi_exit import MultiExitNetwork
from wsss.store.artifacts import Stamp
from wsss.train import Batch, Training, train

SIDE, IMAGES, STEPS = 48, 4, 120


def drawing(index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A red or a blue square on gray: (3, S, S) in [0, 1], (S, S) labels."""
    kind, top, left = index % 2, 6 + 4 * index, 20 - 4 * index
    image, labels = torch.full((3, SIDE, SIDE), 0.5), torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    image[:, top : top + 20, left : left + 20] = 0.1
    image[2 * kind, top : top + 20, left : left + 20] = 0.9
    labels[top : top + 20, left : left + 20] = kind + 1
    return image, labels


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["conv", "ushape"])
def test_a_few_images_by_heart(structure: str, tmp_path: Path) -> None:
    images, labels = (torch.stack(parts) for parts in zip(*map(drawing, range(IMAGES)), strict=True))
    tags = torch.tensor([[float(index % 2 == kind) for kind in range(2)] for index in range(IMAGES)])
    config = SegmentConfig(
        structure=structure,  # type: ignore[arg-type]
        batch=IMAGES,
        optimizer="adamw",
        lr=0.01,
        head_lr=1.0,
        freeze_bn=False,
        weight_sr_f=0.1,  # as in the small presets: block 1, the teacher of detail, cannot tell these classes apart
    )
    plain = tiny_segmenter(2, structure=structure, width=16)
    network = MultiExitNetwork(plain, classes=3, width=16)
    seen: list[dict[str, float]] = []

    def batches(first: int) -> Iterator[Batch]:
        return (Batch([], images, tags, labels) for _ in range(first, STEPS))

    job = Training(
        config=config,
        steps=STEPS,
        steps_per_epoch=1,
        batches=batches,
        checkpoint=tmp_path / "checkpoint.h5",
        stamp=Stamp(stage="segment", version=1, seed=0, data="d", config={}, inputs={}),
        log=seen.append,
    )
    train(network, job, device=torch.device("cpu"), precision=torch.float32)
    assert {"epoch", "cls", "seg", "sr_f", "sr_l"} < set(seen[-1])
    assert seen[-1][f"exit{len(plain.channels)}.miou"] > seen[0][f"exit{len(plain.channels)}.miou"]
    deployed = network.deploy()
    right = [
        (label_probabilities(deployed, image, scales=(1.0,), flip=False).argmax(0) == expected).float().mean()
        for image, expected in zip(images, labels, strict=True)
    ]
    assert min(right) > (0.9 if structure == "conv" else 0.97), right  # cells of 16 pixels round corners
