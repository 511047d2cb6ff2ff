"""Masks of the Semantic Boundaries Dataset as published: MATLAB files, benchmark_RELEASE/dataset/cls/<id>.mat.

Source: Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011;
http://home.bharathh.info/pubs/codes/SBD/download.html
"""

from dataclasses import dataclass
from pathlib import Path

from data.images import UInt8, read_bytes
from data.masks import Facts, facts_of
from data.matlab import read_field
from wsss.errors import UserError


@dataclass(frozen=True)
class SbdMask:
    """The field ``GTcls.Segmentation`` of a MATLAB file: 0 background, 1..20 the VOC classes.

    Attributes:
        file: the .mat file.
    """

    file: Path

    @property
    def part(self) -> str:
        """The whole file."""
        return ""

    def read(self) -> UInt8:
        """Return the segmentation."""
        return _segmentation(read_bytes(self.file), self.file)

    def examine(self) -> Facts:
        """Decode the file once."""
        data = read_bytes(self.file)
        return facts_of(_segmentation(data, self.file), data)

    def __str__(self) -> str:
        return str(self.file)


def _segmentation(data: bytes, file: Path) -> UInt8:
    try:
        return read_field(data, "GTcls", "Segmentation")
    except ValueError as error:
        raise UserError(
            f"{file}: no class segmentation of SBD ({error}). Expected GTcls.Segmentation, one byte per pixel: "
            "use the files of benchmark_RELEASE/dataset/cls."
        ) from error
