"""Weakly-supervised semantic segmentation with Self-Regulation: tensors and arrays in, the same out.

Shape legend everywhere: B batch, C classes, K classes present, D channels, N exits, H W image, h w map.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.commands.predict.predictors import OpenRun

IGNORE = 255
"""The label of pixels that are left out of training and scores: ignored in ground truth, uncertain in a pseudo-mask."""


def open_run(folder: str | Path, overrides: Sequence[str] = ()) -> "OpenRun":
    """Open a finished run, such as ``runs/mine``, for use from Python: see `OpenRun`."""
    # The only import upwards, for whoever starts from `import wsss`; nothing in this program calls it.
    from stages.commands.predict.predictors import OpenRun

    return OpenRun(Path(folder), overrides)
