"""Where exported masks come from: refine's artifact, segment's, or the network now."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.images import read_image
from data.sources import Entry, read_listing
from stages.commands.finished import FinishedRun
from stages.commands.predict.predictors import TILE, RunPredictor, Settings, run_settings
from wsss.errors import UserError
from wsss.resize import resize_labels
from wsss.store.artifacts import Artifact
from wsss.store.json_files import parse_sealed

UNKNOWN_SUFFIX = ".jpg"


@dataclass(frozen=True)
class MaskSource:
    """Masks of a split.

    Attributes:
        ids: in order.
        file_names: of the photographs, by id.
        classes: C names.
        split: name.
        identity: fingerprint of the artifact.
        read: (H, W) uint8 of an id.
        notes: what the user should know.
    """

    ids: tuple[str, ...]
    file_names: Mapping[str, str]
    classes: tuple[str, ...]
    split: str
    identity: str
    read: Callable[[str], NDArray[np.uint8]]
    notes: tuple[str, ...]


def open_source(
    run: FinishedRun, kind: Literal["masks", "predictions"], split: str | None, *, decide: bool
) -> MaskSource:
    """Find the masks of a split.

    Args:
        run: the run.
        kind: ``masks`` or ``predictions``.
        split: name, or None: training for masks, validation for predictions.
        decide: masks: the most probable label where refine is not sure, instead of 255.

    Raises:
        UserError: the run lacks the result, or there are no masks of that split.
    """
    data = run.config.data
    known = (data.train_split, data.val_split)
    split = split or (data.train_split if kind == "masks" else data.val_split)
    if split not in known:
        raise UserError(f"--split {split}: this run knows the splits {known[0]} and {known[1]}")
    if kind == "masks":
        if split != data.train_split:
            raise UserError(
                f"--from masks --split {split}: pseudo-masks are made of the training split {data.train_split} alone; "
                "--from predictions has the network's masks of every split"
            )
        artifact = run.artifact("refine")
        entries, note = _listing(run)
        field = "labels" if decide else "masks"
        return _source(run, artifact, artifact.ids, entries, split, _stored(artifact, field), note)
    return _predictions(run, split)


def _predictions(run: FinishedRun, split: str) -> MaskSource:
    artifact = run.artifact("segment")
    entries, note = _listing(run)
    if entries is None:
        ids = _stored_ids(run, artifact, split)
        return _source(run, artifact, ids, None, split, _stored(artifact, "predictions"), note)
    images = {entry.id: entry.image for entry in entries if entry.split == split}
    if not images:
        raise UserError(f"--split {split}: no image of {run.config.data.root} is in it")
    stored = _stored(artifact, "predictions")
    predictor: list[RunPredictor] = []  # made when it is needed first

    def read(image_id: str) -> NDArray[np.uint8]:
        if image_id in artifact:
            return stored(image_id)
        if not predictor:
            predictor.append(RunPredictor(run, _settings(run)))
        image = read_image(images[image_id])
        return resize_labels(predictor[0].labels(image, None), (image.shape[0], image.shape[1]))

    return _source(run, artifact, tuple(images), entries, split, read, note)


def _source(
    run: FinishedRun,
    artifact: Artifact,
    ids: Sequence[str],
    entries: Sequence[Entry] | None,
    split: str,
    read: Callable[[str], NDArray[np.uint8]],
    note: str,
) -> MaskSource:
    if not ids:
        raise UserError(f"--split {split}: run {run.name} has no masks of it")
    suffixes = {entry.id: entry.image.suffix for entry in entries or ()} or _indexed_suffixes(run, ids)
    names = {image_id: image_id + suffixes.get(image_id, UNKNOWN_SUFFIX) for image_id in ids}
    notes = [note] if note else []
    unknown = sum(image_id not in suffixes for image_id in ids)
    if unknown:
        notes.append(
            f"the file names of {unknown} images are not known any more: {UNKNOWN_SUFFIX} is assumed"
        )
    return MaskSource(tuple(ids), names, artifact.classes, split, artifact.fingerprint, read, tuple(notes))


def _stored(artifact: Artifact, field: str) -> Callable[[str], NDArray[np.uint8]]:
    return lambda image_id: np.asarray(artifact.read(image_id, field), dtype=np.uint8)


def _stored_ids(run: FinishedRun, artifact: Artifact, split: str) -> tuple[str, ...]:
    """Without the data set only stored predictions are left: those that no training image has."""
    if split != run.config.data.val_split or "refine" not in run.stages:
        raise UserError(
            f"--from predictions --split {split}: the photographs in {run.config.data.root} are gone, "
            "and predictions of this split are not stored; put them back, or use `predict` on them"
        )
    refined = run.artifact("refine")
    refined.close()
    return tuple(image_id for image_id in artifact.ids if image_id not in refined)


def _listing(run: FinishedRun) -> tuple[tuple[Entry, ...] | None, str]:
    """The data set's listing; None and a sentence where it cannot be read any more."""
    try:
        return read_listing(run.config.data).entries, ""
    except UserError as error:
        reason = str(error).splitlines()[0]
        return None, f"the data set cannot be read ({reason}); going on with what the run has stored"


def _indexed_suffixes(run: FinishedRun, ids: Sequence[str]) -> dict[str, str]:
    """Extensions from the workspace's record of checked files, by id."""
    wanted = set(ids)
    try:
        record = parse_sealed(run.workspace.file_index(run.config.data.root).read_bytes())
        keys = [key.removeprefix("image:") for key in record["files"] if key.startswith("image:")]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    found = {}
    for path in map(PurePosixPath, keys):
        for depth in range(len(path.parts)):
            name = PurePosixPath(*path.parts[depth:])
            if str(name.with_suffix("")) in wanted:
                found[str(name.with_suffix(""))] = path.suffix
                break
    return found


def _settings(run: FinishedRun) -> Settings:
    return run_settings(run.config, {"crf": False, "tile": TILE})
