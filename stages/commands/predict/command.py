"""The command predict: images in, masks out, with a run's network or an exported one.

The folder of results holds a record of settings, masks that carry a note of how they were made, and overlays.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.images import decode_image, read_bytes
from stages import differences
from stages.commands.predict.inputs import InputImage, find_images, read_tags
from stages.commands.predict.predictors import (
    CRF_ITERATIONS,
    CRF_PRESET,
    CrfInput,
    OnnxPredictor,
    Predictor,
    RunPredictor,
    crf_labels,
    run_settings,
)
from stages.workspace import open_run
from wsss.config import RunConfig
from wsss.errors import SHOWN, UserError, listed, plural
from wsss.pictures import encode_mask, encode_overlay, mask_note
from wsss.resize import resize_labels
from wsss.runtime import distributed
from wsss.runtime.interrupt import Interrupted, check
from wsss.runtime.pool import look_ahead, pool_workers, progress_bar, worker_processes, worker_threads
from wsss.store.files import OutputFolder, atomic_path, digest_of, parse_json, write_json, write_text

UInt8 = NDArray[np.uint8]
RECORD = "predict.json"
_OF_A_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR)
"""What the file system says of one file's name."""
Failure = tuple[str, str]
"""What went wrong with an image, and what may help or nothing."""


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The options of `predict`; None is the run's own setting (the model's), or all classes, or Pillow's limit.

    ``inputs`` are images, without ``onnx`` after the name of a run.
    """

    inputs: Sequence[str]
    workspace: Path
    out: Path
    onnx: Path | None = None
    overrides: Sequence[str] = ()
    tags: Path | None = None
    scales: tuple[float, ...] | None = None
    flip: bool | None = None
    max_side: int | None = None
    tile: int | None = None
    crf: bool = False
    overlay: bool = False
    max_pixels: int | None = None
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """An image that the network has seen, and all that is left to do about it.

    ``labels`` are (h, w) uint8 at the working size, or what a CRF needs to find them; ``size`` is the image's. ``mask``
    and ``overlay`` are files to be written: one with a note of how it was made, one with the image and class names.
    """

    source: Path
    labels: UInt8 | CrfInput
    size: tuple[int, int]
    mask: Path
    note: Mapping[str, Any]
    overlay: tuple[Path, UInt8, Sequence[str]] | None


def run_predict(request: PredictRequest) -> None:
    """Predict every image.

    Raises:
        UserError: nothing was begun; or, at the end, some images could not be predicted: all others were.
    """
    items = request.inputs if request.onnx else request.inputs[1:]
    if not items:
        raise UserError(f"predict {request.inputs[0]}: no images given; expected files, folders or patterns")
    out = OutputFolder(request.out.expanduser())
    images, notes = find_images(items, out.root)
    predictor, machine = _open_predictor(request)
    tags, tag_notes = read_tags(request.tags, images, predictor.classes)
    settings = _record(predictor, tagged=request.tags is not None)
    if distributed.leads():
        _claim(out, settings, images, request)
    distributed.wait()
    for note in (*notes, *tag_notes):
        print(f"note: {note}")
    predictor.load()
    own = images[distributed.rank() :: distributed.count()]
    failures: list[Failure] = []
    workers = pool_workers(machine)
    pool = worker_processes(workers, write_result) if request.crf else worker_threads(1, write_result)
    written = 0
    if request.max_pixels is not None:
        # Pillow refuses what has more than twice as many.
        Image.MAX_IMAGE_PIXELS = -(-request.max_pixels // 2)
    with progress_bar(len(own), "predict", "img") as bar, pool as submit:

        def predicted() -> Iterator[Predicted]:
            for image in own:
                check()
                try:
                    found = _predict(image, request, predictor, out, settings, tags.get(image.name))
                except Interrupted:
                    raise
                except Exception as error:  # whatever it is: this image's alone
                    failures.append(_failure(image.source, error))
                    found = None
                if found:
                    yield found
                else:
                    bar.update()

        depth = 2 * workers if request.crf else 2
        for failure in look_ahead(submit, predicted(), depth=depth):
            failures += [failure] if failure else []
            written += not failure
            bar.update()
    kept = len(own) - written - len(failures)
    written, kept, failed = distributed.totals(written, kept, len(failures))
    print(f"{written} predicted, {kept} there already, {failed} failed: {out.root}")
    _tell(failures, out.place(f"predict.failed{distributed.rank() or ''}.txt"))


def _claim(
    out: OutputFolder, settings: Mapping[str, Any], images: Sequence[InputImage], request: PredictRequest
) -> None:
    """Make sure that nothing made otherwise is overwritten (unless forced), and write the record of settings.

    Raises:
        UserError: the folder holds masks made with other settings, foreign files under names of results, or links
            that lead out of it.
    """
    results = [f"{image.id}.png" for image in images]
    out.hold(results)
    record = out.place(RECORD)
    if not request.force:
        if record.exists():
            _check_same(record, settings)
        elif request.overlay:
            results += [f"{image.id}.overlay.jpg" for image in images]
        # A link that leads nowhere is somebody's too.
        there = [path for path in map(out.place, results) if os.path.lexists(path)]
        foreign = [str(path) for path in there if mask_note(path) is None]
        if foreign:
            raise UserError(
                f"{len(foreign)} result file(s) exist and are none of this program's: {listed(foreign, ', ')}; "
                "give another --out, or --force to replace them"
            )
    write_json(record, {"schema": 1, "settings": settings})


def _check_same(record: Path, settings: Mapping[str, Any]) -> None:
    try:
        changed = differences(parse_json(record.read_bytes())["settings"], settings)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{record}: not the record of a prediction ({error}); --force replaces it") from None
    if changed:
        raise UserError(
            f"{record}: its masks were made with other settings ({listed(changed)}); "
            "give another --out, or --force to replace them"
        )


def write_result(item: Predicted) -> Failure | None:
    """Find the labels by a CRF if that is left to do, and write the overlay and then the mask."""
    files = {}
    try:
        labels = crf_labels(item.labels) if isinstance(item.labels, CrfInput) else item.labels
        labels = resize_labels(labels, item.size)
        if item.overlay is not None:
            path, image, classes = item.overlay
            files[path] = encode_overlay(image, labels, classes)
        files[item.mask] = encode_mask(labels, item.note)
    except Exception as error:
        return _failure(item.source, error)
    try:
        for path, content in files.items():
            with atomic_path(path) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        if error.errno not in _OF_A_NAME:  # a disk that is full ends the command
            raise
        return _failure(item.source, error)
    return None


def _predict(
    image: InputImage,
    request: PredictRequest,
    predictor: Predictor,
    out: OutputFolder,
    settings: Mapping[str, Any],
    tags: Sequence[int] | None,
) -> Predicted | None:
    """What the network says about an image; None where the results of exactly this are there.

    Raises:
        UserError: the image cannot be read, or the network cannot be run on it.
    """
    data = read_bytes(image.source)
    note = {
        "settings": digest_of(settings),
        "photograph": hashlib.sha256(data).hexdigest(),
        "tags": None if tags is None else list(tags),
    }
    mask, overlay = out.place(f"{image.id}.png"), out.place(f"{image.id}.overlay.jpg")
    if not request.force and mask_note(mask) == note and (overlay.exists() or not request.overlay):
        return None
    pixels = decode_image(data, image.source)
    allowed = None
    if tags is not None:
        allowed = np.zeros(len(predictor.classes) + 1, dtype=np.bool_)
        allowed[[0, *(tag + 1 for tag in tags)]] = True
    ask = predictor.crf_input if request.crf else predictor.labels
    return Predicted(
        source=image.source,
        labels=ask(pixels, allowed),
        size=(pixels.shape[0], pixels.shape[1]),
        mask=mask,
        note=note,
        overlay=(overlay, pixels, predictor.classes) if request.overlay else None,
    )


def _open_predictor(request: PredictRequest) -> tuple[Predictor, RunConfig]:
    """The network, and how to use the machine."""
    if request.scales is not None and not all(0.05 <= scale <= 8 for scale in request.scales):
        raise UserError(f"--scales {','.join(map(str, request.scales))}: expected numbers between 0.05 and 8")
    names = ("scales", "flip", "max_side", "tile", "crf")
    given = {name: value for name in names if (value := getattr(request, name)) is not None}
    if request.onnx is None:
        run = open_run(request.workspace, request.inputs[0], request.overrides)
        return RunPredictor(run, run_settings(run.config, **given)), run.config.run
    if request.overrides:
        raise UserError(f"--set {request.overrides[0]}: belongs to a run; with --onnx there is none")
    if request.tile is not None:
        raise UserError("--tile: an exported model sees an image at once; limit it with --max-side N")
    return OnnxPredictor(request.onnx, **given), RunConfig()


def _record(predictor: Predictor, *, tagged: bool) -> dict[str, Any]:
    """All that the masks depend on besides the images and their tags."""
    settings = msgspec.to_builtins(predictor.settings) | {"scales": list(predictor.settings.scales)}
    del settings["tile"]  # what ran out of memory is resumed with a smaller one: nearly the same masks
    settings["crf"] = [CRF_PRESET, CRF_ITERATIONS, settings.pop("crf_max_side")] if settings["crf"] else None
    return {"network": predictor.identity, "classes": list(predictor.classes), "tagged": tagged, **settings}


def _failure(source: Path, error: Exception) -> Failure:
    if isinstance(error.__cause__, Image.DecompressionBombError):
        return str(error), "Images that are meant to be that large: --max-pixels N."
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's, of an accelerator
        return f"{source}: not enough memory", "Less memory: a smaller --tile or --max-side."
    if isinstance(error, UserError):
        return str(error) if str(source) in str(error) else f"{source}: {error}", ""
    return f"{source}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", ""


def _tell(failures: Sequence[Failure], file: Path) -> None:
    """Raise UserError with the failures, a line each; where there are many, ``file`` has all of them."""
    file.unlink(missing_ok=True)
    if failures:
        texts = [text for text, _ in failures]
        lines = [f"{plural(len(texts), 'image')} could not be predicted:", *texts[:SHOWN]]
        if len(texts) > SHOWN:
            content = "".join(f"{text}\n" for text in texts)
            write_text(file, content.encode(errors="backslashreplace").decode())
            lines.append(f"and {len(texts) - SHOWN} more, all of them in {file}")
        raise UserError("\n".join([*lines, *sorted({remedy for _, remedy in failures} - {""})]))
