"""The command line with a checkpoint after every step and shards of two images: much can be cut in the middle."""

import sys

import torch

import run_pipeline
from wsss import train
from wsss.store import artifacts


def cut_small() -> None:
    """Make this process do so; one thread, and the size of shards, are part of what decides the bits."""
    torch.set_num_threads(1)
    train.CHECKPOINT_SECONDS = 0.0
    (artifacts.write_sharded.__kwdefaults__ or {})["shard_size"] = 2


if __name__ == "__main__":
    cut_small()
    sys.exit(run_pipeline.main())
