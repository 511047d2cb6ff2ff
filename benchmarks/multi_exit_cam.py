"""Do the maps of shallower exits make a better seed than the deepest exit's alone?

    python -m benchmarks.multi_exit_cam --name sample --workspace runs

Takes a finished run whose training images have masks and whose classification network has exits (``classify.exits``).
Prints the seed's mIoU with the maps of the deepest exit, of each exit alone, and of the deepest fused with every subset
of the others by mean and by product (see `wsss.cams.fused_cams`), in the views of the run (``cams.scales``, ``flip``).
Each at the threshold that this truth likes best, and at the configured one; with ``refine.threshold = "label-free"``
that is the one which colour information chooses on these images. "Seen" is the share of tags with any activation: an
exit that has hardly learned sees nothing, and changes nothing. The network sees every image once.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data import Sample, open_dataset
from data.loading import whole_image
from stages.commands.report.page import signed
from stages.training import load_multi_exit
from stages.workspace import FinishedRun, open_run
from wsss.cams import FusionRule, class_activation_views, fused_cams
from wsss.config import RefineConfig
from wsss.errors import UserError
from wsss.metrics import THRESHOLDS, Counts, strongest_labels, sweep_counts, sweep_ious
from wsss.metrics.confusion import mean_defined
from wsss.metrics.indicators import colour_information_curve, label_free_threshold
from wsss.model.multi_exit import MultiExitNetwork
from wsss.resize import resize_image, resize_maps
from wsss.runtime.device import autocast, choose_device, choose_precision
from wsss.runtime.progress import progress_bar

RULES: tuple[FusionRule, ...] = ("mean", "product")


@dataclass(frozen=True)
class Choice:
    """Exits by their position among the measured ones (the deepest is last), and how they are fused."""

    title: str
    exits: tuple[int, ...]
    fusion: FusionRule = "mean"


@dataclass(frozen=True)
class Scored:
    """The seed of one choice.

    Attributes:
        choice: what made it.
        curve: (T,) mIoU at `THRESHOLDS`.
        configured: mIoU at the configured threshold.
        threshold: which that is.
        seen: share of the images' tags whose map is not all zero.
    """

    choice: Choice
    curve: NDArray[np.float64]
    configured: float
    threshold: float
    seen: float

    @property
    def best(self) -> int:
        """Index of the threshold at which the mIoU is largest."""
        return int(np.nanargmax(self.curve))


def choices(blocks: Sequence[int]) -> list[Choice]:
    """The deepest alone, each exit alone, the deepest with every subset of the others under both rules."""
    deepest = len(blocks)
    found = [Choice("deepest", (deepest,))]
    found += [Choice(f"{block}", (index,)) for index, block in enumerate(blocks)]
    for size in range(1, deepest + 1):
        for subset in combinations(range(deepest), size):
            names = " + ".join(f"{blocks[index]}" for index in subset)
            found += [Choice(f"{names} + deepest, {rule}", (*subset, deepest), rule) for rule in RULES]
    return found


def measured(run: FinishedRun, blocks: Sequence[int] | None, exit_weight: float) -> tuple[list[Scored], int]:
    """Score every choice on the training images that have masks.

    Args:
        run: a finished run.
        blocks: whose exits are measured, 1 = shallowest; None: all that the network has.
        exit_weight: weight of each exit but the deepest, whose weight is 1.

    Returns:
        A score per choice, and the number of images.

    Raises:
        UserError: no masks, no exits, or a block without one.
    """
    dataset = open_dataset(run.config.data)
    samples = [sample for sample in dataset.split(run.config.data.train_split).samples if sample.mask]
    if not samples:
        raise UserError(f"run {run.name}: no training image has a mask; this measurement needs the truth")
    network = _network(run, len(dataset.classes))
    known = _blocks(run, network)
    blocks = known if blocks is None else blocks
    label_free = run.config.refine.threshold == "label-free"
    empty = np.zeros((len(THRESHOLDS), len(dataset.classes) + 1, 3), np.int64)
    counted = [_Counted(choice, empty) for choice in choices(blocks)]
    for sample, image, cams in _exit_cams(run, network, samples, blocks):
        small = resize_image(image, (cams.shape[2], cams.shape[3])) if label_free else None
        for each in counted:
            each.add(sample, cams, exit_weight, small)
    return [each.scored(run.config.refine) for each in counted], len(samples)


@dataclass
class _Counted:
    """What is summed over images for one choice; the colour information only for a label-free threshold."""

    choice: Choice
    seeds: Counts
    colours: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(THRESHOLDS)))
    tags: int = 0
    seen: int = 0

    def add(self, sample: Sample, cams: Tensor, exit_weight: float, image: NDArray[np.uint8] | None) -> None:
        """Count one image: CAMs (E, K, h, w) of its exits, pixels (h, w, 3) where colours are wanted."""
        assert sample.mask is not None
        exits = cams[list(self.choice.exits)]
        fused = fused_cams(exits, fusion=self.choice.fusion, exit_weight=exit_weight)
        maps = fused.numpy().astype(np.float16)  # as the stage stores them
        enlarged = resize_maps(maps, sample.size)
        strongest = strongest_labels(enlarged, np.asarray(sample.tags, np.uint8))
        self.seeds = self.seeds + sweep_counts(sample.mask.read(), *strongest, self.seeds.shape[1])
        self.tags += len(maps)
        self.seen += int(maps.any((1, 2)).sum())
        if image is not None:
            self.colours += colour_information_curve(image, maps)

    def scored(self, config: RefineConfig) -> Scored:
        """The scores, at the configured threshold or at the one that colour information chooses."""
        curve = mean_defined(sweep_ious(self.seeds))
        chosen = label_free_threshold(self.colours) if config.threshold == "label-free" else None
        threshold = config.background if chosen is None else chosen
        nearest = int(np.abs(np.asarray(THRESHOLDS) - threshold).argmin())
        return Scored(self.choice, curve, float(curve[nearest]), threshold, self.seen / max(1, self.tags))


def _network(run: FinishedRun, classes: int) -> MultiExitNetwork:
    return load_multi_exit(
        run.path("classify"),
        run.config.classify,
        classes,
        choose_device(run.config.run.device),
    )


def _blocks(run: FinishedRun, network: MultiExitNetwork) -> list[int]:
    if not network.blocks or not run.config.classify.mea:
        raise UserError(
            f"run {run.name}: its classification network has no exits that learn (classify.exits = "
            f"{list(run.config.classify.exits)}, classify.mea = {str(run.config.classify.mea).lower()})"
        )
    return [block + 1 for block in network.blocks]


def _exit_cams(
    run: FinishedRun, network: MultiExitNetwork, samples: Sequence[Sample], blocks: Sequence[int]
) -> Iterator[tuple[Sample, NDArray[np.uint8], Tensor]]:
    """Per image its pixels (H, W, 3) as the network saw them, and the CAMs (E, K, h, w), the deepest's last."""
    config, device = run.config.cams, choose_device(run.config.run.device)
    precision = choose_precision(run.config.run, device)
    with progress_bar(len(samples), "multi-exit CAM", "img") as bar:
        for sample in samples:
            image = whole_image(sample, config.max_side)
            with autocast(device, precision):
                views = class_activation_views(
                    network,
                    image.to(device),
                    sample.tags,
                    scales=config.scales,
                    flip=config.flip,
                    exits=blocks,
                )
            yield sample, _pixels(image), views.exit_cams().cpu()
            bar.update()


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) float in [0, 1] -> (H, W, 3) uint8."""
    return np.asarray((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def _print(rows: Sequence[Scored], images: int) -> None:
    first = rows[0]
    print(f"\nseed mIoU on {images} training images; the best threshold is chosen by this truth\n")
    print("| exits | seen, % | best | at | against the deepest | configured | at | against the deepest |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        best, before = row.curve[row.best], first.curve[first.best]
        cells = [
            *(row.choice.title, f"{100 * row.seen:.0f}"),
            *(f"{100 * best:.1f}", f"{THRESHOLDS[row.best]:.2f}", signed(best - before)),
            *(f"{100 * row.configured:.1f}", f"{row.threshold:.2f}"),
            signed(row.configured - first.configured),
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="name of a finished run")
    parser.add_argument("--workspace", type=Path, default=Path("runs"))
    parser.add_argument("--exits", type=int, nargs="+", metavar="BLOCK", help="default: all that there are")
    parser.add_argument("--exit-weight", type=float, default=1.0, help="beside the deepest's 1 (default 1)")
    options = parser.parse_args()
    try:
        run = open_run(options.workspace, options.name)
        _print(*measured(run, options.exits, options.exit_weight))
    except (UserError, ValueError) as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main()
