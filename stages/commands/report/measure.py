"""Measures that are kept in the workspace: read when somebody asks for them.

The measuring itself: all images of an artifact, chunk by chunk, in a pool of processes.

Measures of a whole artifact, computed once and kept in the workspace by what they depend on.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from data import Dataset, Sample
from stages import Planned
from stages.commands.report.images import Chunk, Measurer
from stages.commands.report.values import Values, measured_values
from stages.refine import seed_threshold
from wsss.config import Config
from wsss.runtime.interrupt import check
from wsss.runtime.pool import look_ahead, pool_workers, worker_processes
from wsss.runtime.progress import progress_bar
from wsss.store.artifacts import Artifact
from wsss.store.files import digest_of, is_kept, parse_json, write_sealed_json

AGAIN = "it is measured again"
HEADLINE = "-headline.json"
"""How the name of the file with the single figures ends; `prune` knows both files by the fingerprint."""


class Measured:
    """A stage's measures, kept in two files: all of them, and the single figures alone, which are read at once.

    Args:
        key: see `measure_key`.
        path: of the JSON file with all of them.
    """

    def __init__(self, key: str, path: Path) -> None:
        self.key = key
        self.path = path

    def is_kept(self) -> bool:
        """Whether they are there as they were written, told without parsing them. Damaged ones are set aside."""
        return is_kept(self.path, AGAIN)

    @cached_property
    def values(self) -> Values:
        """All measures; with an entry per image they are many."""
        return _read(self.path)

    @cached_property
    def headline(self) -> Values:
        """The single figures among them."""
        path = self.path.with_name(f"{self.path.stem}{HEADLINE}")
        if is_kept(path, AGAIN):
            return _read(path)
        single = {key: value for key, value in self.values.items() if not isinstance(value, list)}
        write_sealed_json(path, single)
        return single


class Measures(Mapping[str, Values]):
    """The measures of a run's stages by name, read when asked for."""

    def __init__(self, measured: Mapping[str, Measured]) -> None:
        self.measured = measured

    def __getitem__(self, stage: str) -> Values:
        return self.measured[stage].values

    def __iter__(self) -> Iterator[str]:
        return iter(self.measured)

    def __len__(self) -> int:
        return len(self.measured)

    def headlines(self) -> dict[str, Values]:
        """The single figures of every stage."""
        return {stage: measured.headline for stage, measured in self.measured.items()}

    def keys_of_measures(self) -> dict[str, str]:
        """What each stage's measures depend on, as hashes."""
        return {stage: measured.key for stage, measured in self.measured.items()}


def _read(path: Path) -> Values:
    values: Values = parse_json(path.read_bytes())
    del values["sha256"]
    return values


CHUNK = 32
"""Images measured at a time: fixed, so that sums are formed in the same order whatever the number of workers."""
CHOSEN_BY = {
    "fixed": "the configuration (refine.background)",
    "label-free": "colour information, without ground truth (refine.threshold)",
}
POOL_FROM = 3 * CHUNK
"""Fewer images are measured in this process: starting others takes longer."""


def measured_artifact(
    planned: Planned,
    everything: Mapping[str, Planned],
    config: Config,
    samples: Sequence[Sample],
    classes: tuple[str, ...],
) -> Values:
    """Measure the images of a stage's artifact; see `stages.commands.report.measure.measure`."""
    seed = everything.get("cams")
    artifact = Artifact(planned.path, fingerprint=planned.stamp.fingerprint)
    cams = Artifact(seed.path) if planned.name == "refine" and seed and seed.cached else None
    try:
        background = config.refine.background
        if planned.name == "cams":
            background = seed_threshold(config.refine, artifact)
        elif planned.name == "refine":
            background = float(artifact.group("seed")["threshold"])
        exits = _predicting_exits(artifact) if planned.name == "segment" else []
        measurer = Measurer(planned.name, artifact, cams, len(classes) + 1, background, len(exits))
        found = _measured(measurer, samples, pool_workers(config.run))
    finally:
        for opened in filter(None, (artifact, cams)):
            opened.close()
    head = {
        "split": config.data.val_split if planned.name == "segment" else config.data.train_split,
        "fingerprint": planned.stamp.fingerprint,
        "truth": [sample.mask_digest for sample in samples],
    }
    chosen_by = CHOSEN_BY[config.refine.threshold]
    return head | measured_values(planned.name, found, background, chosen_by, exits)


def _predicting_exits(artifact: Artifact) -> list[int]:
    """The blocks of the shallower exits whose predictions the artifact has."""
    blocks: list[int] = artifact.group("predicting_exits")["blocks"].tolist()
    return blocks


def _measured(measurer: Measurer, samples: Sequence[Sample], workers: int) -> Chunk:
    total = Chunk.empty(measurer.labels, measurer.exits)
    with progress_bar(len(samples), "measure", "img") as bar:
        for chunk in _chunks(measurer, samples, workers):
            total.merge(chunk)
            bar.update(len(chunk.ids))
    return total


def _chunks(measurer: Measurer, samples: Sequence[Sample], workers: int) -> Iterator[Chunk]:
    parts = [list(samples[start : start + CHUNK]) for start in range(0, len(samples), CHUNK)]
    if workers < 2 or len(samples) < POOL_FROM:
        for part in parts:
            check()
            yield measurer(part)
        return
    with worker_processes(workers, measurer) as submit:
        yield from look_ahead(submit, parts, depth=2 * workers)


VERSION = 5


def measure(
    planned: Planned, everything: Mapping[str, Planned], config: Config, dataset: Dataset, workspace: Path
) -> Measured | None:
    """Measures of a stage's artifact, or None for `classify` and for a split without images.

    ``cams``: the seed at the configured background score, and the whole sweep. ``refine``: the refined labels.
    ``segment``: predictions of the validation split. Scores where images have masks, indicators for all.
    """
    scored = scored_images(planned.name, config, dataset)
    if planned.name == "classify" or not len(scored):
        return None
    measured = place_of(planned, config, dataset, workspace)
    if not measured.is_kept():
        from stages.commands.report.measure import (
            measured_artifact,  # an unchanged run does without its imports
        )

        values = measured_artifact(planned, everything, config, scored.samples, dataset.classes)
        write_sealed_json(measured.path, values)
    return measured


def place_of(planned: Planned, config: Config, dataset: Dataset, workspace: Path) -> Measured:
    """Where a stage's measures are, or will be: under a name of what they depend on."""
    key = measure_key(planned, config, dataset)
    # The fingerprint is in the name for `prune`.
    return Measured(key, workspace / "scores" / f"{planned.name}-{planned.stamp.fingerprint}-{key}.json")


def scored_images(stage: str, config: Config, dataset: Dataset) -> Dataset:
    """The images by which a stage is judged: validation for segment, training for all else."""
    return dataset.split(config.data.val_split if stage == "segment" else config.data.train_split)


def measure_key(planned: Planned, config: Config, dataset: Dataset) -> str:
    """Hash of all that a stage's measures depend on."""
    background = [config.refine.threshold, config.refine.background] if planned.name == "cams" else None
    truth = scored_images(planned.name, config, dataset).mask_digests()
    return digest_of([VERSION, planned.stamp.fingerprint, background, truth])
