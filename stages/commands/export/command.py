"""The command export: a run's masks in other programs' formats, or its network as ONNX."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from data.cache import Memory, checked_images
from data.images import read_image
from data.sources import read_listing
from stages.commands.export.formats import FORMATS, LabelledImage, Labelling, check_names, file_names
from stages.commands.predict.predictors import METADATA_SCHEMA, RunPredictor, run_settings
from stages.workspace import FinishedRun, open_run
from wsss.errors import UserError, listed
from wsss.resize import resize_labels
from wsss.runtime.interrupt import check
from wsss.runtime.pool import progress_bar
from wsss.store.artifacts import Artifact
from wsss.store.files import OutputFolder, atomic_path, is_sealed

UNKNOWN_SUFFIX = ".jpg"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The options of `export`; what is None is chosen as its help says."""

    name: str
    workspace: Path
    format: Literal["voc", "coco", "cvat", "labelstudio", "yolo", "onnx"]
    source: Literal["masks", "predictions"] | None = None
    split: str | None = None
    out: Path | None = None
    overrides: Sequence[str] = ()
    unsure: Literal["keep", "decide"] = "keep"
    instances: bool = False
    prefix: str = "/data/local-files/?d="
    force: bool = False


def run_export(request: ExportRequest) -> None:
    """Write the export and say where it is.

    Raises:
        UserError: no such run or result, a split without it, files in the way, ids that leave the folder.
    """
    run = open_run(request.workspace, request.name, request.overrides)
    if request.format == "onnx":
        _export_onnx(run, request)
        return
    if request.source is None:
        raise UserError("export: --from is missing; expected --from masks or --from predictions")
    split = _split(run, request)
    artifact = run.artifact("refine" if request.source == "masks" else "segment")
    listed_images = _images(run)
    if request.source == "masks":
        ids = artifact.ids
    elif listed_images:
        ids = tuple(image_id for image_id, (of, _) in listed_images.items() if of == split)
    else:
        ids = _stored_ids(run, artifact, split)
    if not ids:
        raise UserError(
            f"--split {split}: no image of it, neither in run {run.name} nor in {run.config.data.root}"
        )
    check_names(request.format, ids, artifact.classes)
    scores = _scores(run, "refine" if request.source == "masks" else "segment", artifact.fingerprint)
    if request.format in ("cvat", "labelstudio"):
        ids = tuple(sorted(ids, key=lambda image_id: scores.get(image_id, 1)))  # those to review first
    targets = file_names(request.format, ids, split)
    out = _folder(run, request, f"{request.source}-{split}-{request.format}", targets)
    about = Labelling(
        run=run.name,
        source=request.source,
        split=split,
        fingerprint=artifact.fingerprint,
        classes=artifact.classes,
        instances=request.instances,
        prefix=request.prefix,
    )
    field = {"masks": "labels" if request.unsure == "decide" else "masks", "predictions": "predictions"}

    @cache
    def predictor() -> RunPredictor:
        found = RunPredictor(run, run_settings(run.config))
        found.load()
        return found

    def labels(image_id: str) -> NDArray[np.uint8]:
        if image_id in artifact:
            return np.asarray(artifact.read(image_id, field[about.source]), dtype=np.uint8)
        image = read_image(listed_images[image_id][1])
        return resize_labels(predictor().labels(image, None), (image.shape[0], image.shape[1]))

    def images() -> Iterator[LabelledImage]:
        suffixes = _suffixes(run, ids, listed_images)
        with progress_bar(len(ids), "export", "img") as bar:
            for image_id in ids:
                check()
                found, name = labels(image_id), image_id + suffixes[image_id]
                yield LabelledImage(image_id, name, found, scores.get(image_id))
                bar.update()

    for name, content in FORMATS[request.format](images(), about):
        _put(out, name, content)
    print(f"{len(ids)} images, {request.source} of split {split}: {out.root / targets[0]}")


def _scores(run: FinishedRun, stage: str, fingerprint: str) -> dict[str, float]:
    """The order of review by image id, as the run's report has it; empty where that is not about this result."""
    file = run.run.folder / "report.json"
    if not file.exists() or not is_sealed(file):
        return {}
    values = msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])
    keys = (f"{stage}.fingerprint", f"{stage}.per_image.id", f"{stage}.per_image.review")
    if not values.keys() >= set(keys):
        return {}
    of, ids, scores = (msgspec.json.decode(values[key]) for key in keys)
    known = {image: score for image, score in zip(ids, scores, strict=True) if score is not None}
    return known if of == fingerprint else {}


def _split(run: FinishedRun, request: ExportRequest) -> str:
    data, masks = run.config.data, request.source == "masks"
    if masks and run.config.segment.supervision == "full":
        raise UserError(
            f"--from masks: run {run.name} learned from the data set's own masks and has no pseudo-masks; "
            "--from predictions has the network's"
        )
    split = request.split or (data.train_split if masks else data.val_split)
    if split not in (data.train_split, data.val_split):
        raise UserError(f"--split {split}: this run knows the splits {data.train_split} and {data.val_split}")
    if masks and split != data.train_split:
        raise UserError(
            f"--from masks --split {split}: pseudo-masks are made of the training split {data.train_split} alone; "
            "--from predictions has the network's masks of every split"
        )
    return split


def _images(run: FinishedRun) -> dict[str, tuple[str, Path]]:
    """Split and file of the data set's images by id; none where it cannot be read any more."""
    try:
        listing = read_listing(run.config.data)
        return {entry.id: (entry.split, listing.images / entry.image) for entry in listing.entries}
    except UserError as error:
        reason = str(error).splitlines()[0]
        print(f"note: the data set cannot be read ({reason}); what the run has stored is exported")
        return {}


def _stored_ids(run: FinishedRun, segment: Artifact, split: str) -> tuple[str, ...]:
    """Without the data set only stored predictions are left: those that no training image has."""
    if split != run.config.data.val_split or "refine" not in run.stages:
        raise UserError(
            f"--from predictions --split {split}: the images in {run.config.data.root} are gone, "
            "and predictions of this split are not stored; put them back, or use `predict` on them"
        )
    refined = run.artifact("refine")
    return tuple(image_id for image_id in segment.ids if image_id not in refined)


def _suffixes(run: FinishedRun, ids: Sequence[str], images: Mapping[str, tuple[str, Path]]) -> dict[str, str]:
    """Extensions of the images' files by id, without the data set from the workspace's record of checked files."""
    known = {image_id: path.suffix for image_id, (_, path) in images.items()}
    if not known:
        memory = Memory(run.workspace.file_index(run.config.data.root))
        for path in map(PurePosixPath, checked_images(memory)):
            for depth in range(len(path.parts)):  # an id may begin at any folder
                below = PurePosixPath(*path.parts[depth:])
                known.setdefault(str(below.with_suffix("")), path.suffix)
    unknown = sum(image_id not in known for image_id in ids)
    if unknown:
        print(f"note: the file names of {unknown} images are not known any more: {UNKNOWN_SUFFIX} is assumed")
    return {image_id: known.get(image_id, UNKNOWN_SUFFIX) for image_id in ids}


def _folder(run: FinishedRun, request: ExportRequest, usual: str, targets: Sequence[str]) -> OutputFolder:
    """Where the export goes, if no file is in the way (a link that leads nowhere is somebody's too)."""
    place = request.out.expanduser() if request.out else None
    out = OutputFolder(place or run.workspace.output.place(f"{run.name}/export/{usual}/"))
    out.hold(targets)
    there = [str(out.root / target) for target in targets if os.path.lexists(out.root / target)]
    if there and not request.force:
        raise UserError(
            f"{len(there)} file(s) are there already: {listed(there, ', ')}; "
            "give another --out DIR, or --force to replace them"
        )
    return out


def _export_onnx(run: FinishedRun, request: ExportRequest) -> None:
    """Write ``model.onnx``. What imports torch is imported here: it is worth seconds."""
    out = _folder(run, request, "onnx", ["model.onnx"])
    artifact = run.artifact("segment")
    artifact.close()
    import torch

    from stages.training import load_deployed
    from wsss.model.onnx import onnx_model

    segment = run.config.segment
    network = load_deployed(artifact.path, segment, len(artifact.classes), torch.device("cpu"))
    metadata: dict[str, Any] = {
        "classes": list(artifact.classes),
        "mean": network.backbone.mean.flatten().tolist(),
        "std": network.backbone.std.flatten().tolist(),
        "scale": 1 / 255,
        "stride": network.stride,
        "fingerprint": artifact.fingerprint,
        "run": run.name,
        "scales": list(segment.test_scales),
        "flip": segment.test_flip,
        "max_side": segment.max_side,
        "crf_max_side": run.config.refine.max_side,
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    texts["wsss"] = METADATA_SCHEMA
    texts["input"] = (
        "RGB / 255, (batch, 3, height, width) float32; mean and std are subtracted and divided inside"
    )
    print("tracing the network (half a minute on two cores) ...", file=sys.stderr, flush=True)
    content = onnx_model(network, texts).SerializeToString(deterministic=True)
    _put(out, "model.onnx", content)
    digest = hashlib.sha256(content).hexdigest()[:16]
    print(f"{len(artifact.classes)} classes and background, sha256 {digest}: {out.root / 'model.onnx'}")


def _put(out: OutputFolder, name: str, content: bytes) -> None:
    with atomic_path(out.place(name)) as temporary:
        temporary.write_bytes(content)
