"""The command export: a run's masks in other programs' formats, or its network as ONNX."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.commands.export.formats import (
    LabelledImage,
    coco_json,
    labelling_config,
    labelstudio_json,
    voc_files,
    write_cvat,
    write_voc,
)
from stages.commands.export.sources import MaskSource, open_source
from stages.commands.finished import FinishedRun, open_run
from wsss.errors import UserError, listed
from wsss.onnx_network import METADATA_SCHEMA
from wsss.runtime.interrupt import check
from wsss.runtime.progress import progress_bar
from wsss.store.files import OutputFolder, atomic_path

Unsure = Literal["keep", "decide"]


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What `export` is told.

    Attributes:
        name: of the run.
        workspace: where it is.
        format: one of voc, coco, cvat, labelstudio, onnx.
        source: ``masks`` (refine's, of the training images) or ``predictions`` (segment's).
        split: whose images; None: the training split for masks, the validation split for predictions.
        out: folder, or None: below the run's own.
        overrides: ``run.key=value`` texts.
        unsure: what becomes of pixels of which refine is not sure: keep them so, or take the most probable label.
        instances: an annotation per connected component, not per class.
        prefix: Label Studio: what stands before an image's name.
        force: replace files that are there.
    """

    name: str
    workspace: Path
    format: str
    source: Literal["masks", "predictions"] | None = None
    split: str | None = None
    out: Path | None = None
    overrides: Sequence[str] = ()
    unsure: Unsure = "keep"
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
    source = open_source(run, request.source, request.split, decide=request.unsure == "decide")
    _check_ids(source.ids)
    out = _folder(run, request, f"{request.source}-{source.split}-{request.format}")
    targets = _targets(request.format, source)
    _check_targets(out, targets, force=request.force)
    for note in source.notes:
        print(f"note: {note}")
    with progress_bar(len(source.ids), "export", "img") as bar:
        _write(request, source, _reported(source, bar), out)
    print(f"{len(source.ids)} images, {request.source} of split {source.split}: {out.root / targets[0]}")


def _folder(run: FinishedRun, request: ExportRequest, usual: str) -> OutputFolder:
    """Where the export goes: what the user names may be anywhere, the usual place is in the workspace."""
    if request.out:
        return OutputFolder(request.out.expanduser())
    return OutputFolder(run.workspace.output.place(f"{run.name}/export/{usual}/"))


def _targets(name: str, source: MaskSource) -> list[str]:
    """Files that a format writes, the one to show first."""
    if name == "voc":
        files = voc_files(source.ids, source.split)
        return [*files[-2:], *files[:-2]]
    if name == "labelstudio":
        return [f"tasks_{source.split}.json", "labelling_config.xml"]
    return [f"instances_{source.split}.json" if name == "coco" else f"segmentation_mask_{source.split}.zip"]


def _write(
    request: ExportRequest, source: MaskSource, images: Iterator[LabelledImage], out: OutputFolder
) -> None:
    """Write one format; its list or its only file comes last, so what is not whole is not listed."""
    put, targets = partial(_put, out), _targets(request.format, source)
    if request.format == "voc":
        write_voc(images, source.classes, source.split, put)
    elif request.format == "coco":
        info = {
            "description": f"{request.source} of split {source.split}, run {request.name}",
            "version": source.identity,
        }
        put(targets[0], coco_json(images, source.classes, info, instances=request.instances))
    elif request.format == "cvat":
        with atomic_path(out.place(targets[0])) as temporary:
            write_cvat(temporary, images, source.classes, instances=request.instances)
    else:
        tasks = labelstudio_json(
            images,
            source.classes,
            model=f"{request.name} {source.identity}",
            prefix=request.prefix,
            instances=request.instances,
        )
        put(targets[1], labelling_config(source.classes).encode())
        put(targets[0], tasks)


def _export_onnx(run: FinishedRun, request: ExportRequest) -> None:
    """Write ``model.onnx``; the imports of torch are worth seconds."""
    out = _folder(run, request, "onnx")
    _check_targets(out, ["model.onnx"], force=request.force)
    artifact = run.artifact("segment")
    artifact.close()
    import torch

    from stages.commands.predict.predictors import segmenter
    from wsss.model.onnx import onnx_model

    network = segmenter(run, artifact, torch.device("cpu"))
    norm = network.backbone
    config = run.config
    metadata: dict[str, Any] = {
        "classes": list(artifact.classes),
        "mean": norm.mean.flatten().tolist(),
        "std": norm.std.flatten().tolist(),
        "scale": 1 / 255,
        "stride": network.stride,
        "fingerprint": artifact.fingerprint,
        "run": run.name,
        "scales": list(config.segment.test_scales),
        "flip": config.segment.test_flip,
        "max_side": config.segment.max_side,
        "crf_max_side": config.refine.max_side,
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


def _reported(source: MaskSource, bar: Any) -> Iterator[LabelledImage]:
    for image_id in source.ids:
        check()
        yield LabelledImage(image_id, source.file_names[image_id], _checked(source.read(image_id), image_id))
        bar.update()


def _checked(labels: NDArray[Any], image_id: str) -> NDArray[np.uint8]:
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise ValueError(f"{image_id}: expected a mask (H, W) uint8, got {labels.dtype} {labels.shape}")
    return labels


def _check_ids(ids: Sequence[str]) -> None:
    """Refuse ids that would be written elsewhere than below the output folder."""
    wrong = [
        image_id
        for image_id in ids
        if PurePosixPath(image_id).is_absolute()
        or {"..", "."} & set(image_id.split("/"))
        or any(character in image_id for character in "\\\0\n\r")
        or not all(image_id.split("/"))
    ]
    if wrong:
        raise UserError(
            f"image ids that are no relative paths: {listed([repr(i) for i in wrong], ', ')}; nothing was written"
        )


def _check_targets(out: OutputFolder, targets: Sequence[str], *, force: bool) -> None:
    """Refuse to replace what is there, links that lead nowhere included, and to write out of the folder."""
    out.hold(targets)
    there = [str(out.root / target) for target in targets if os.path.lexists(out.root / target)]
    if there and not force:
        raise UserError(
            f"{len(there)} file(s) are there already: {listed(there, ', ')}; "
            "give another --out DIR, or --force to replace them"
        )


def _put(out: OutputFolder, name: str, content: bytes) -> None:
    try:
        with atomic_path(out.place(name)) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{out.root / name}: cannot be written ({error.strerror}); give another --out DIR"
        ) from None
