"""What a stage is handed: its configuration, the data it may see, its inputs, and where its output goes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import Dataset
from wsss.config import Config
from wsss.store.artifacts import Stamp


@dataclass(frozen=True, kw_only=True)
class Context:
    """All that a stage's `compute` knows.

    Attributes:
        config: the whole resolved configuration.
        data: the samples the stage may see; masks are there under full supervision alone.
        inputs: artifact paths by stage name.
        output: final path of the artifact that the stage writes.
        stamp: of that artifact.
        log: writes an event to the run's log.
    """

    config: Config
    data: Dataset
    inputs: Mapping[str, Path]
    output: Path
    stamp: Stamp
    log: Callable[[dict[str, Any]], None]

    @property
    def checkpoint(self) -> Path:
        """Where training keeps its state between tries."""
        return checkpoint_of(self.output)


def checkpoint_of(artifact: Path) -> Path:
    """Where the training that ends in an artifact keeps its state between tries."""
    return artifact.with_name(f"{artifact.name}.checkpoint")
