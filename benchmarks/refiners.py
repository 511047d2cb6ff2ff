"""The dense CRF against local refinement on a finished run's CAMs: images a second and mIoU (docs/refiners.md).

    OMP_NUM_THREADS=1 python -m benchmarks.refiners --name sample --workspace runs

Takes a finished run whose training images have masks, with its CRF preset and working size. One process with one
thread; the methods take turns image by image, so what else runs on the machine slows both. Timed is the refinement
alone, from probabilities to probabilities, without reading and writing: in CPU time, which a busy machine hardly
changes, and in wall time where ``--device`` is a GPU, each image waited for, transfers included.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data import Sample, open_dataset
from stages.refine import Seed, crf_posterior, decide, local_posterior, local_side, read_seed, seed_threshold
from stages.workspace import FinishedRun, open_run
from wsss.config import RefineConfig
from wsss.errors import UserError
from wsss.metrics import confusion_counts, mask_scores
from wsss.runtime.device import choose_device
from wsss.runtime.progress import progress_bar
from wsss.store.artifacts import Artifact


@dataclass(frozen=True)
class Row:
    """One method at one background score.

    Attributes:
        title: of the method.
        background: the background score.
        images: number of images.
        seconds: of all refinements.
        miou: of the most probable labels.
        miou_sure: of the pixels that are not left out as unsure.
        unsure: share of the truth's pixels left out.
    """

    title: str
    background: float
    images: int
    seconds: float
    miou: float
    miou_sure: float
    unsure: float


class _Method:
    """A way to refine, and what was summed over images; confusion (L, L + 1) of labels and of masks."""

    def __init__(
        self,
        title: str,
        unsure: float,
        seeds: Callable[[Sample], Seed],
        posterior: Callable[[Seed], NDArray[np.float32]],
        clock: Callable[[], float],
        labels: int,
    ) -> None:
        self.title, self.unsure = title, unsure
        self.seeds, self.posterior, self.clock = seeds, posterior, clock
        self.labels, self.masks = np.zeros((2, labels, labels + 1), np.int64)
        self.seconds = 0.0

    def add(self, sample: Sample) -> None:
        assert sample.mask is not None
        seed = self.seeds(sample)
        started = self.clock()
        posterior = self.posterior(seed)
        self.seconds += self.clock() - started
        truth, found = sample.mask.read(), decide(seed, posterior, self.unsure)
        self.labels += confusion_counts(truth, found["labels"], len(self.labels))
        self.masks += confusion_counts(truth, found["masks"], len(self.masks))

    def row(self, background: float, images: int) -> Row:
        sure = mask_scores(self.masks)
        miou = mask_scores(self.labels).miou
        return Row(self.title, background, images, self.seconds, miou, sure.miou_sure, sure.undecided)


def measured(
    run: FinishedRun,
    *,
    backgrounds: Sequence[float],
    iterations: Sequence[int],
    sides: Sequence[int],
    device: torch.device,
    every: int,
) -> list[Row]:
    """Refine every n-th training image that has a mask by both methods.

    Args:
        run: a finished run.
        backgrounds: background scores; empty: what the run's configuration sets or chooses.
        iterations: of local refinement, a row each; empty: as configured.
        sides: values of ``refine.local_side``, a row each; empty: as configured.
        device: of local refinement.
        every: n.

    Returns:
        Per background score the CRF's row and those of local refinement.

    Raises:
        UserError: no masks.
    """
    dataset = open_dataset(run.config.data)
    samples = [sample for sample in dataset.split(run.config.data.train_split).samples if sample.mask][
        ::every
    ]
    if not samples:
        raise UserError(f"run {run.name}: no training image has a mask; this measurement needs the truth")
    cams, labels, config = run.artifact("cams"), len(dataset.classes) + 1, run.config.refine
    variants = [
        replace(config, iterations=count, local_side=side)
        for side in sides or [config.local_side]
        for count in iterations or [config.iterations]
    ]
    rows = []
    for background in backgrounds or [seed_threshold(config, cams)]:
        methods = [_crf(config, cams, background, labels)]
        methods += [_local(each, cams, background, labels, device) for each in variants]
        _take_turns(methods, samples, background)
        rows += [method.row(background, len(samples)) for method in methods]
    return rows


def _crf(config: RefineConfig, cams: Artifact, background: float, labels: int) -> _Method:
    seeds = partial(read_seed, cams, max_side=config.max_side, background=background)
    posterior = partial(crf_posterior, config=config)
    return _Method(f"crf, {config.preset}", config.unsure, seeds, posterior, time.process_time, labels)


def _local(
    config: RefineConfig, cams: Artifact, background: float, labels: int, device: torch.device
) -> _Method:
    side = local_side(config)
    seeds = partial(read_seed, cams, max_side=side, background=background)
    posterior = partial(local_posterior, config=config, device=device)
    title = f"local, {config.iterations} iterations at {side}"
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    return _Method(title, config.local_unsure, seeds, posterior, clock, labels)


def _take_turns(methods: Sequence[_Method], samples: Sequence[Sample], background: float) -> None:
    for method in methods:
        method.posterior(method.seeds(samples[0]))  # the first call loads libraries and takes memory
    with progress_bar(len(samples), f"background {background:.2f}", "img") as bar:
        for sample in samples:
            for method in methods:
                method.add(sample)
            bar.update()


def _print(rows: Sequence[Row]) -> None:
    print(f"\n{rows[0].images} training images\n")
    print("| background | method | images/s | of the CRF's | mIoU | where sure | left out, % |")
    print("|---|---|---|---|---|---|---|")
    crf = rows[0]
    for row in rows:
        crf = row if row.title.startswith("crf") else crf
        cells = [
            *(f"{row.background:.2f}", row.title, f"{row.images / row.seconds:.1f}"),
            *(f"{crf.seconds / row.seconds:.2f}", f"{100 * row.miou:.1f}"),
            *(f"{100 * row.miou_sure:.1f}", f"{100 * row.unsure:.1f}"),
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="name of a finished run")
    parser.add_argument("--workspace", type=Path, default=Path("runs"))
    parser.add_argument("--device", default="cpu", help="of local refinement (default cpu)")
    parser.add_argument("--background", type=float, nargs="+", default=[], help="default: the run's own")
    parser.add_argument("--iterations", type=int, nargs="+", default=[], help="of local refinement")
    parser.add_argument(
        "--side", type=int, nargs="+", default=[], help="of local refinement: refine.local_side"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every n-th image (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        run = open_run(options.workspace, options.name)
        rows = measured(
            run,
            backgrounds=options.background,
            iterations=options.iterations,
            sides=options.side,
            device=choose_device(options.device),
            every=options.every,
        )
    except UserError as error:
        raise SystemExit(f"{error}") from None
    _print(rows)


if __name__ == "__main__":
    main()
