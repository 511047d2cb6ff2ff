"""What benchmarks of a stage share: arguments, and the sample's run, trained once in a workspace of their own."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from data import Sample
from data.masks import PngMask
from stages import execute
from stages.commands.session import Request, Session, open_session

CONFIG = Path(__file__).parent.parent / "configs" / "sample.toml"


def sample_session(workspace: Path, upto: str) -> Session:
    """The sample's run with all stages up to ``upto`` computed, or found in the cache."""
    session = open_session(Request(CONFIG, [], "bench", workspace))
    for name, item in session.planned.items():
        execute(item, session.planned, session.config, session.dataset, say=print)
        if name == upto:
            break
    return session


def enlarged(samples: Sequence[Sample], side: int, folder: Path) -> tuple[Sample, ...]:
    """Copies of photographs and masks whose long side is ``side`` pixels; VOC's is 500."""
    folder.mkdir(parents=True)
    copies = []
    for index, sample in enumerate(samples):
        factor = side / max(sample.size)
        size = (round(sample.size[1] * factor), round(sample.size[0] * factor))
        image, mask = folder / f"{index}.jpg", folder / f"{index}.png"
        with Image.open(sample.image) as photograph:
            photograph.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(image, quality=92)
        if sample.mask is not None:
            Image.fromarray(sample.mask.read()).resize(size, Image.Resampling.NEAREST).save(mask)
        truth = None if sample.mask is None else PngMask(mask)
        copies.append(replace(sample, image=image, mask=truth, size=(size[1], size[0])))
    return tuple(copies)


def arguments(description: str | None) -> argparse.Namespace:
    """``images``, ``workspace`` and ``json`` of the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100, help="of the sample's training photographs")
    parser.add_argument("--side", type=int, default=500, help="long side to which they are enlarged")
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="keeps the trained classifier")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return parser.parse_args()
