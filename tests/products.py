"""A finished tiny run for tests of what comes after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.commands import run_all
from tests.pipelines import request
from tests.trees import make_folder_tree
from wsss.artifacts import Artifact
from wsss.config import DataConfig

VARIED = ["refine.background=0.6", "refine.unsure=0.7", "refine.iterations=1", "run.precision=fp32"]
"""Settings with which masks of an untrained network show several labels, and 255."""


@dataclass(frozen=True)
class Product:
    """A workspace with the finished run ``tiny`` and the data it was made from."""

    workspace: Path
    data: DataConfig

    @property
    def images(self) -> Path:
        return Path(self.data.root) / "images"

    def artifact(self, stage: str) -> Artifact:
        return Artifact(next((self.workspace / "artifacts" / stage).glob("*.h5")))

    def arguments(self, *extra: object) -> list[str]:
        return [*map(str, extra), "--workspace", str(self.workspace)]

    @contextmanager
    def data_gone(self) -> Iterator[None]:
        """The folder of the data set has another name meanwhile."""
        root = Path(self.data.root)
        away = root.rename(root.with_name("away"))
        try:
            yield
        finally:
            away.rename(root)


def make_product(folder: Path) -> Product:
    data = make_folder_tree(folder / "data", n_train=6, n_val=3, size=(60, 88))
    run_all(request(data, folder / "ws", *VARIED))
    return Product(folder / "ws", data)
