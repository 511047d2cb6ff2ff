"""The command predict: photographs in, masks out, with a run's network or an exported one."""

import contextlib
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.images import decode_image, read_bytes
from stages.commands.finished import open_run
from stages.commands.predict.folder import claim, mask_path, overlay_path, write_bytes
from stages.commands.predict.inputs import Photograph, find_photographs, read_tags
from stages.commands.predict.predictors import (
    CRF_ITERATIONS,
    CRF_PRESET,
    TILE,
    CrfTask,
    OnnxPredictor,
    Predictor,
    RunPredictor,
    onnx_settings,
    run_settings,
)
from wsss.config import RunConfig
from wsss.errors import UserError, listed
from wsss.memory import reusing_memory
from wsss.onnx_network import OnnxNetwork
from wsss.pictures import encode_mask, encode_overlay, mask_note
from wsss.resize import resize_labels
from wsss.runtime import distributed
from wsss.runtime.interrupt import check
from wsss.runtime.pool import WorkerPool, pool_workers
from wsss.runtime.progress import progress_bar
from wsss.store.files import OutputFolder
from wsss.store.json_files import canonical_json

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What `predict` is told.

    Attributes:
        inputs: with ``onnx`` photographs; without, the name of a run and then photographs.
        workspace: where the run is.
        out: folder of the results.
        onnx: a model file, or None: the run's own network.
        overrides: ``run.key=value`` texts.
        tags: CSV that names the classes to choose from, or None: all.
        scales: factors on the working size, or None: the run's own (the model's).
        flip: average with the mirror image, or None: as the run.
        max_side: larger images are reduced to it first; 0: never; None: as the run.
        tile: larger images are computed in tiles of this side; 0: never; None: 1536.
        crf: dense CRF on top.
        overlay: also write pictures.
        max_pixels: of a photograph, or None: Pillow's own limit.
        force: replace what is there.
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


@dataclass(frozen=True)
class _Job:
    """One photograph that is to be predicted: where from, where to, and the note that its mask will carry."""

    photograph: Photograph
    mask: Path
    overlay: Path | None
    note: Mapping[str, Any]
    allowed: NDArray[np.bool_] | None

    def done(self) -> bool:
        """Whether the results of exactly this are there. The mask is written last."""
        return (self.overlay is None or self.overlay.exists()) and mask_note(self.mask) == self.note


def run_predict(request: PredictRequest) -> None:
    """Predict every photograph.

    Raises:
        UserError: nothing was begun; or, at the end, some photographs could not be predicted: all others were.
    """
    items = request.inputs if request.onnx else request.inputs[1:]
    if not items:
        raise UserError(
            f"predict {request.inputs[0]}: no photographs given; expected files, folders or patterns"
        )
    out = OutputFolder(request.out.expanduser())
    photographs, notes = find_photographs(items, out.root)
    predictor, machine = _predictor(request)
    tags, tag_notes = read_tags(request.tags, photographs, predictor.classes)
    settings = _record(predictor, tagged=request.tags is not None)
    if distributed.leads():
        claim(out, settings, photographs, overlay=request.overlay, force=request.force)
    distributed.wait()
    for note in (*notes, *tag_notes, *predictor.notes):
        print(f"note: {note}")
    job = _Jobs(out, settings, tags, len(predictor.classes) + 1, overlay=request.overlay, force=request.force)
    own = photographs[distributed.rank() :: distributed.count()]
    with _pixel_limit(request.max_pixels), progress_bar(len(own), "predict", "img") as bar:
        outcome = _Outcome(predictor.classes, bar)
        pool = WorkerPool(pool_workers(machine)) if predictor.settings.crf else contextlib.nullcontext()
        with pool as crf:
            _predict_all(own, job, predictor, crf, outcome, 2 * pool_workers(machine))
    written, kept, failed = distributed.totals(outcome.written, outcome.kept, len(outcome.failures))
    print(f"{written} predicted, {kept} there already, {failed} failed: {out.root}")
    outcome.raise_failures()


@dataclass(frozen=True)
class _Jobs:
    """Makes the job of a photograph."""

    out: OutputFolder
    settings: Mapping[str, Any]
    tags: Mapping[str, Sequence[int]]
    labels: int
    overlay: bool
    force: bool

    def __call__(self, photograph: Photograph, digest: str) -> _Job:
        chosen = self.tags.get(photograph.name)
        note = {
            "settings": hashlib.sha256(canonical_json(self.settings).encode()).hexdigest()[:16],
            "photograph": digest,
            "tags": None if chosen is None else list(chosen),
        }
        overlay = overlay_path(self.out, photograph) if self.overlay else None
        return _Job(photograph, mask_path(self.out, photograph), overlay, note, self._allowed(chosen))

    def _allowed(self, chosen: Sequence[int] | None) -> NDArray[np.bool_] | None:
        if chosen is None:
            return None
        allowed = np.zeros(self.labels, dtype=np.bool_)
        allowed[[0, *(tag + 1 for tag in chosen)]] = True
        return allowed


class _Outcome:
    """Takes results, writes them, and counts."""

    def __init__(self, classes: Sequence[str], bar: Any) -> None:
        self.classes = classes
        self.bar = bar
        self.written = 0
        self.kept = 0
        self.failures: list[tuple[Photograph, Exception]] = []

    def keep(self) -> None:
        """One was there already."""
        self.kept += 1
        self.bar.update()

    def fail(self, photograph: Photograph, error: Exception) -> None:
        """One could not be predicted."""
        self.failures.append((photograph, error))
        self.bar.update()

    def write(self, job: _Job, image: UInt8, labels: UInt8) -> None:
        """Write one result: labels at the working size."""
        full = resize_labels(labels, (image.shape[0], image.shape[1]))
        if job.overlay is not None:
            write_bytes(job.overlay, encode_overlay(image, full, self.classes))
        write_bytes(job.mask, encode_mask(full, job.note))
        self.written += 1
        self.bar.update()

    def raise_failures(self) -> None:
        """Name what failed."""
        if not self.failures:
            return
        texts = [
            str(error) or f"{photograph.source}: not enough memory" for photograph, error in self.failures
        ]
        hint = ""
        if any(isinstance(error.__cause__, Image.DecompressionBombError) for _, error in self.failures):
            hint = "\nPhotographs that are meant to be that large: --max-pixels N."
        if any(isinstance(error, MemoryError) for _, error in self.failures):
            hint += "\nLess memory: a smaller --tile or --max-side."
        raise UserError(f"{len(texts)} photograph(s) could not be predicted: {listed(texts, ' ')}{hint}")


def _predict_all(
    photographs: Sequence[Photograph],
    jobs: _Jobs,
    predictor: Predictor,
    crf: Executor | None,
    outcome: _Outcome,
    ahead: int,
) -> None:
    """The loop over photographs; with a CRF, up to ``ahead`` of them wait for its processes."""
    waiting: deque[tuple[_Job, UInt8, Future[UInt8]]] = deque()
    try:
        for photograph in reusing_memory(photographs):
            check()
            try:
                data = read_bytes(photograph.source)
                job = jobs(photograph, hashlib.sha256(data).hexdigest())
                if not jobs.force and job.done():
                    outcome.keep()
                    continue
                image = decode_image(data, photograph.source)
                del data
                if crf is None:
                    outcome.write(job, image, predictor.labels(image, job.allowed))
                    continue
                waiting.append((job, image, crf.submit(_apply, predictor.crf_task(image, job.allowed))))
            except (UserError, MemoryError) as error:
                outcome.fail(photograph, error)
            while len(waiting) > ahead:
                _finish(outcome, *waiting.popleft())
        while waiting:
            check()
            _finish(outcome, *waiting.popleft())
    finally:
        for _, _, future in waiting:
            future.cancel()


def _finish(outcome: _Outcome, job: _Job, image: UInt8, future: Future[UInt8]) -> None:
    outcome.write(job, image, future.result())


def _apply(task: CrfTask) -> UInt8:
    return task()


def _predictor(request: PredictRequest) -> tuple[Predictor, RunConfig]:
    """The network, and how to use the machine."""
    given = {"scales": request.scales, "flip": request.flip, "max_side": request.max_side}
    overrides: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    overrides |= {"crf": request.crf, "tile": TILE if request.tile is None else request.tile}
    if request.onnx is None:
        run = open_run(request.workspace, request.inputs[0], request.overrides)
        return RunPredictor(run, run_settings(run.config, overrides)), run.config.run
    if request.overrides:
        raise UserError(f"--set {request.overrides[0]}: belongs to a run; with --onnx there is none")
    if request.tile is not None:
        raise UserError("--tile: an exported model sees an image at once; limit it with --max-side N")
    network = OnnxNetwork(request.onnx)
    digest = hashlib.sha256(read_bytes(request.onnx)).hexdigest()[:16]
    return OnnxPredictor(network, onnx_settings(network, overrides), f"onnx:{digest}"), RunConfig()


def _record(predictor: Predictor, *, tagged: bool) -> dict[str, Any]:
    """All that the masks depend on beside the photographs and their tags."""
    settings: dict[str, Any] = asdict(predictor.settings) | {"scales": list(predictor.settings.scales)}
    del settings["tile"]  # the same result within rounding
    settings["crf"] = [CRF_PRESET, CRF_ITERATIONS, settings.pop("crf_max_side")] if settings["crf"] else None
    return {"network": predictor.identity, "classes": list(predictor.classes), "tagged": tagged, **settings}


@contextlib.contextmanager
def _pixel_limit(pixels: int | None) -> Iterator[None]:
    """Raise (or lower) Pillow's limit: it refuses what has more than twice as many pixels as its constant."""
    before = Image.MAX_IMAGE_PIXELS
    if pixels is not None:
        Image.MAX_IMAGE_PIXELS = -(-pixels // 2)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
