"""A finished tiny run for tests of what comes after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from stages.commands.run import run_all
from tests.pipelines import request
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.store.artifacts import Artifact
from wsss.store.files import seal


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
    run_all(request(data, folder / "ws", "run.precision=fp32"))
    product = Product(folder / "ws", data)
    _vary(product.artifact("refine").path)
    return product


def _vary(path: Path) -> None:
    """Give the pseudo-masks blocks of every label and of 255, which an untrained network need not find."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "r+") as file:
        for name, dataset in file["masks"].items():
            blocks = rng.choice([0, 1, 2, 3, 255], (10, 11))
            mask = np.kron(blocks, np.ones((6, 8))).astype(np.uint8)
            dataset[...] = mask
            file[f"labels/{name}"][...] = np.where(mask == 255, 2, mask)
    seal(path)  # HDF5 has cut off the former one
