"""A short training that any number of torchrun's processes can do; the leader writes losses and weights.

torchrun --nproc-per-node N tests/torchrun_training.py OUT [KEY=VALUE of SegmentConfig, as JSON]
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from tests.networks import tiny_segmenter
from wsss.config import SegmentConfig
from wsss.model.multi_exit import MultiExitNetwork
from wsss.runtime import distributed
from wsss.store.artifacts import Stamp
from wsss.train import Batch, Training, train

BATCH, STEPS = 5, 6


def whole_batch(step: int) -> Batch:
    """Five images; the share of unlabelled pixels and the number of tags differ, and one image has no tag."""
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(0, 3, (BATCH, 32, 32), dtype=torch.uint8, generator=generator)
    for index in range(BATCH):
        labels[index, : 7 * index] = 255
    tags = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1], [1, 1]], dtype=torch.float32)
    return Batch([f"{step}-{index}" for index in range(BATCH)], images, tags, labels)


def own_batches(first: int) -> Iterator[Batch]:
    """This process's part of each batch."""
    for step in range(first, STEPS):
        batch = whole_batch(step)
        own = distributed.part(BATCH)
        assert batch.labels is not None
        yield Batch(batch.ids[own], batch.images[own], batch.tags[own], batch.labels[own])


def main(out: Path, changes: dict[str, object]) -> None:
    """Train and write ``losses.json`` and ``weights.pt``."""
    config = replace(SegmentConfig(batch=BATCH, lr=0.01, head_lr=1.0, sr_start=0.3), **changes)  # type: ignore[arg-type]
    plain = tiny_segmenter(2, structure=config.structure)
    network = MultiExitNetwork(
        plain, classes=3, width=8, project=config.sr_maps == "features", tag_layers=2, detail_block=2
    )
    losses: list[dict[str, float]] = []
    job = Training(
        config=config,
        steps=STEPS,
        steps_per_epoch=1,
        batches=own_batches,
        checkpoint=out / "checkpoint.h5",
        stamp=Stamp(stage="segment", version=1, seed=3, data="d", config={}, inputs={}),
        log=losses.append,
    )
    with distributed.together():
        train(network, job, device=torch.device("cpu"), precision=torch.float32)
    if distributed.leads():
        # One position that another rounding calls differently is as good: what exits are known to know is left out.
        terms = [{name: value for name, value in means.items() if "." not in name} for means in losses]
        (out / "losses.json").write_text(json.dumps(terms))
        torch.save(dict(network.named_parameters()), out / "weights.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
