"""The command line with a checkpoint after every step and shards of two images: much can be cut in the middle."""

import sys

import run_pipeline
from wsss import artifacts, train

train.CHECKPOINT_SECONDS = 0.0
(artifacts.write_sharded.__kwdefaults__ or {})["shard_size"] = 2

if __name__ == "__main__":
    sys.exit(run_pipeline.main())
