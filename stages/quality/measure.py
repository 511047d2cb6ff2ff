"""Measures of a whole artifact, computed once and kept in the workspace by what they depend on."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from data import Dataset
from stages import Planned
from stages.quality.measured import Measured
from wsss.config import Config
from wsss.files import write_text
from wsss.json_files import canonical_json, sealed_json

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
        from stages.quality.measuring import measured_artifact  # an unchanged run does without its imports

        values = measured_artifact(planned, everything, config, scored.samples, dataset.classes)
        write_text(measured.path, sealed_json(values))
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
    material = canonical_json([VERSION, planned.stamp.fingerprint, background, truth])
    return hashlib.sha256(material.encode()).hexdigest()[:16]
