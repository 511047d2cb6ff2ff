"""Folders that results are written to: whatever links lie in one, nothing is written outside of it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsss.errors import UserError, listed


@dataclass(frozen=True)
class OutputFolder:
    """A folder of results. It may be a link itself, as one to a larger disk is; links in it must not lead out of it.

    A link under the very name of a result does no harm: files are renamed into their places, which replaces it.

    Attributes:
        root: the folder; it need not exist.
    """

    root: Path

    def place(self, name: str) -> Path:
        """Where a result belongs; the name is relative, with ``/``, and ends in one where it is a folder.

        Raises:
            UserError: a link among the folders of that name leads out of this one.
        """
        self.hold([name])
        return self.root / name

    def hold(self, names: Iterable[str]) -> None:
        """Make sure that results of these names would lie inside. Raises UserError as `place`."""
        real = os.path.realpath(self.root)
        folders = sorted({name.rpartition("/")[0] for name in names})
        outside = [folder for folder in folders if not _is_within(os.path.realpath(self.root / folder), real)]
        if outside:
            links = sorted({self._link(folder, real) for folder in outside})
            raise UserError(
                f"{listed(links, ', ')}: a link that leads out of the output folder {self.root}, through which nothing "
                "is written.\nPut a folder in its place, or give another output folder (it may be a link itself)."
            )

    def _link(self, folder: str, real: str) -> str:
        """The first part of a folder's name that leads outside, and where it leads."""
        parts = Path(folder).parts
        places = [self.root.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
        first = next(place for place in places if not _is_within(os.path.realpath(place), real))
        return f"{first} -> {os.path.realpath(first)}"


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
