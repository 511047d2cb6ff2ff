"""How well do indicators that need no ground truth rank thresholds and CRF settings? (docs/indicators.md)

    python -m benchmarks.indicators --name sample --workspace runs

Takes a finished run whose training images have masks. Thresholds: every indicator of the seed, and the seed's mIoU, at
0.05 to 0.95. CRF settings: the six presets at eight background scores on every n-th image. Prints Spearman's rank
correlation with the true mIoU, and what the setting that an indicator likes best loses against the best one.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from data import Sample
from data.images import read_image
from stages.commands.session import Request, open_session
from wsss.crf import PRESETS, dense_crf, probabilities, pseudo_mask
from wsss.metrics import THRESHOLDS, Counts, confusion_counts, mask_scores, seed_labels
from wsss.metrics.indicators import agreement, colour_information, edge_alignment, gradient_ranks
from wsss.resize import resize_maps
from wsss.runtime.pool import cpu_cores, look_ahead, worker_processes
from wsss.runtime.progress import progress_bar
from wsss.store.artifacts import Artifact

COARSE = tuple(round(0.05 * step, 2) for step in range(1, 20))
BACKGROUNDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
SETTINGS = tuple((preset, background) for preset in PRESETS for background in BACKGROUNDS)
STORED = ("mirror_agreement", "scale_agreement", "colour_information")

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Of one image: confusion (S, L, L + 1) under S settings, and each indicator (S,)."""

    confusion: Counts
    indicators: Mapping[str, Table]


def thresholds_of(cams: Artifact, labels: int, sample: Sample) -> Found:
    """The seed at the coarse thresholds."""
    image, truth = read_image(sample.image), _truth(sample)
    ranks = gradient_ranks(image)
    maps = resize_maps(cams.read(sample.id, "maps"), sample.size)
    classes = cams.read(sample.id, "classes")
    seeds = [seed_labels(maps, classes, threshold) for threshold in COARSE]
    fine = [*cams.read(sample.id, "agreement"), cams.read(sample.id, "colour_information")]
    chosen = [THRESHOLDS.index(threshold) for threshold in COARSE]
    indicators = {name: curve[chosen].astype(np.float64) for name, curve in zip(STORED, fine, strict=True)}
    indicators["edge_alignment"] = np.array([edge_alignment(ranks, seed) for seed in seeds])
    indicators["covered"] = np.array([_covered(seed, sample) for seed in seeds])
    return Found(np.stack([confusion_counts(truth, seed, labels) for seed in seeds]), indicators)


def settings_of(cams: Artifact, labels: int, sample: Sample) -> Found:
    """The CRF under every preset and background score."""
    image, truth = read_image(sample.image), _truth(sample)
    ranks = gradient_ranks(image)
    maps = resize_maps(cams.read(sample.id, "maps"), sample.size)
    classes = cams.read(sample.id, "classes").astype(np.int64)
    names = np.concatenate([[0], classes + 1])
    counts, rows = [], []
    for preset, background in SETTINGS:
        posterior = dense_crf(image, probabilities(maps, background), PRESETS[preset], iterations=10)
        mask, best = pseudo_mask(posterior, names, unsure=0.6)
        counts.append(confusion_counts(truth, best, labels))
        rows.append(
            {
                "cam_agreement": agreement(seed_labels(maps, classes, background), best),
                "colour_information": colour_information(image, best),
                "edge_alignment": edge_alignment(ranks, best),
                "covered": _covered(best, sample),
                "unsure": float((mask == 255).mean()),
            }
        )
    return Found(np.stack(counts), {name: np.array([row[name] for row in rows]) for name in rows[0]})


def collected(
    measure: Callable[[Sample], Found], samples: Sequence[Sample], label: str
) -> tuple[Table, dict[str, Table]]:
    """True mIoU (S,) and each indicator's mean over images (S,)."""
    confusion: Counts | None = None
    rows: dict[str, list[Table]] = {}
    with progress_bar(len(samples), label, "img") as bar:
        for found in _in_pool(measure, samples):
            confusion = found.confusion if confusion is None else confusion + found.confusion
            for name, values in found.indicators.items():
                rows.setdefault(name, []).append(values)
            bar.update()
    assert confusion is not None
    miou = np.array([mask_scores(counts).miou for counts in confusion])
    return miou, {name: np.nanmean(np.stack(values), axis=0) for name, values in rows.items()}


def _in_pool(measure: Callable[[Sample], Found], samples: Sequence[Sample]) -> Iterator[Found]:
    with worker_processes(cpu_cores(), measure) as submit:
        yield from look_ahead(submit, samples, depth=4 * cpu_cores())


def _truth(sample: Sample) -> NDArray[np.uint8]:
    if sample.mask is None:
        raise SystemExit(f"{sample.id} has no mask: this measurement needs the truth")
    return sample.mask.read()


def _covered(labels: NDArray[np.uint8], sample: Sample) -> float:
    return float(np.mean([(labels == tag + 1).any() for tag in sample.tags]))


def _rank(a: Table, b: Table) -> str:
    return "-" if np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9 else f"{spearmanr(a, b).statistic:+.2f}"


def _print_thresholds(samples: Sequence[Sample], cams: Artifact, labels: int) -> None:
    miou, indicators = collected(partial(thresholds_of, cams, labels), samples, "thresholds")
    best = int(miou.argmax())
    print(
        f"\nthresholds of the seed, {len(samples)} images; best {COARSE[best]:.2f}: {100 * miou[best]:.1f} mIoU\n"
    )
    print("| indicator | rank correlation | its choice | mIoU there | lost |\n|---|---|---|---|---|")
    for name, values in indicators.items():
        top = int(np.nanargmax(values))
        print(
            f"| {name} | {_rank(values, miou)} | {COARSE[top]:.2f} | {100 * miou[top]:.1f} | "
            f"{100 * (miou[best] - miou[top]):.1f} |"
        )


def _print_settings(samples: Sequence[Sample], cams: Artifact, labels: int) -> None:
    miou, indicators = collected(partial(settings_of, cams, labels), samples, "CRF")
    best = int(miou.argmax())
    print(
        f"\nCRF settings, {len(samples)} images; best {SETTINGS[best][0]} at {SETTINGS[best][1]}: "
        f"{100 * miou[best]:.1f} mIoU; {100 * miou.min():.1f} to {100 * miou.max():.1f}\n"
    )
    print(
        "| indicator | all 48 | presets, background fixed (mean, range) | background, preset fixed | lost |"
    )
    print("|---|---|---|---|---|")
    grid = (len(PRESETS), len(BACKGROUNDS))
    for name, values in indicators.items():
        table, truth = values.reshape(grid), miou.reshape(grid)
        across = [
            [_rank(a, b) for a, b in zip(t, m, strict=True)] for t, m in ((table.T, truth.T), (table, truth))
        ]
        texts = []
        for ranks in across:
            known = [float(rank) for rank in ranks if rank != "-"]
            texts.append(f"{np.mean(known):+.2f} ({min(known):+.2f} to {max(known):+.2f})" if known else "-")
        top = int(np.nanargmax(values))
        print(
            f"| {name} | {_rank(values, miou)} | {texts[0]} | {texts[1]} | {100 * (miou[best] - miou[top]):.1f} |"
        )


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="name of a finished run")
    parser.add_argument("--workspace", type=Path, default=Path("runs"))
    parser.add_argument("--crf-images", type=int, default=70, help="images for the CRF settings")
    options = parser.parse_args()
    session = open_session(Request(None, [], options.name, options.workspace))
    samples = [s for s in session.dataset.split(session.config.data.train_split).samples if s.mask and s.tags]
    cams, labels = Artifact(session.planned["cams"].path), len(session.dataset.classes) + 1
    _print_thresholds(samples, cams, labels)
    _print_settings(samples[:: max(1, len(samples) // options.crf_images)], cams, labels)


if __name__ == "__main__":
    main()
