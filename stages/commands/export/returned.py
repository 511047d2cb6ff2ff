"""The command import: what other programs give back of an export becomes corrections of the training images.

A file says what every pixel is; only what differs from the run's masks, as they were exported, is a correction.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

import msgspec
import numpy as np
from numpy.typing import NDArray

from data.images import decode_image, read_bytes, read_mask
from data.sources.coco import CocoMask, read_instances
from stages.workspace import FinishedRun, open_run
from wsss import IGNORE
from wsss.errors import UserError, listed, plural
from wsss.pictures import encode_mask
from wsss.store.files import OutputFolder, atomic_path

Labels: TypeAlias = NDArray[np.uint8]
Returned: TypeAlias = Iterator[tuple[str, Labels]]
"""Of each image that a file speaks of: its name there, and labels (H, W), 0 background, c + 1 class c.

(0, 0) stands for background everywhere, where a file does not say how large that is."""


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """The options of `import`: ``whole`` takes a changed image as it came back, not only where it differs."""

    name: str
    workspace: Path
    file: Path
    out: Path | None = None
    unsure: Literal["keep", "decide"] = "keep"
    whole: bool = False


def run_import(request: ImportRequest) -> None:
    """Write the corrections that a file holds, beside those that are there, and say how to learn from them.

    Raises:
        UserError: no such run, a file that is none of the known ones, an export of other masks, unknown images or
            classes, other sizes; nothing is written then.
    """
    run, file = open_run(request.workspace, request.name), request.file.expanduser()
    with closing(run.artifact("refine")) as artifact:
        ids = dict.fromkeys(artifact.ids)
        corrections: dict[str, Labels] = {}
        seen, strange, problems, pixels = set[str](), list[str](), list[str](), 0
        for name, labels in read_returned(file, artifact.classes, artifact.fingerprint):
            image_id = matching_id(name, ids)
            if image_id is None:
                strange.append(name)
                continue
            seen.add(image_id)
            known = artifact.read(image_id, "labels" if request.unsure == "decide" else "masks")
            if not labels.size:
                labels = np.zeros_like(known)
            if labels.shape != known.shape:
                sizes = (f"{array.shape[1]}x{array.shape[0]}" for array in (labels, known))
                problems.append("{} is {}, its image {} (width x height)".format(name, *sizes))
                continue
            if not file.is_dir():  # no annotation covers uncertain pixels
                known = np.where(known == IGNORE, np.uint8(0), known)
            changed = (labels != known) & (labels != IGNORE)
            if changed.any():
                pixels += int(np.count_nonzero(changed))
                corrections[image_id] = (
                    labels if request.whole else np.where(changed, labels, np.uint8(IGNORE))
                )
    if problems:
        raise UserError(
            f"{file}: {len(problems)} masks do not fit: {listed(problems)}; export the run's own images"
        )
    if not seen:
        raise UserError(
            f"{file}: no training image of run {run.name} is among its {plural(len(strange), 'image')}: "
            f"{listed(strange, ', ')}; expected names such as {next(iter(ids))}"
        )
    if strange:
        print(f"note: not used, since no training image has such a name: {listed(strange, ', ')}")
    print(f"{len(corrections)} of {plural(len(seen), 'image')} changed, {pixels:,} pixels")
    if corrections:
        folder = _folder(run, request.out)
        _write(folder, corrections)
        print(
            f"corrections: {folder.root}\nlearn from them: run_pipeline.py run --name '{run.name}' --workspace "
            f"'{run.workspace.root}' --set data.corrections='{folder.root}'"
        )


def read_returned(file: Path, classes: Sequence[str], fingerprint: str) -> Returned:
    """What a file or folder says of images. Raises UserError as `run_import`."""
    if file.is_dir():
        return _pngs(file, len(classes))
    if zipfile.is_zipfile(file):
        return _cvat(file, classes)
    try:
        document = msgspec.json.decode(read_bytes(file).removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, list):
        return _label_studio(file, document, classes, fingerprint)
    if isinstance(document, dict) and "annotations" in document:
        return _coco(file, document, classes, fingerprint)
    raise UserError(
        f"{file}: expected CVAT's archive 'Segmentation mask 1.1', Label Studio's JSON, COCO's instances JSON, or a "
        "folder of PNGs named by image"
    )


def matching_id(name: str, ids: Mapping[str, None]) -> str | None:
    """The image that a file's name means: with folders or a prefix before it, as Label Studio writes it."""
    path = PurePosixPath(unquote(name).rpartition("?d=")[2].replace("\\", "/"))
    parts = path.with_suffix("").parts if path.suffix else path.parts
    for start in range(len(parts)):
        if (found := "/".join(parts[start:])) in ids:
            return found
    uploaded = re.sub(r"^[0-9a-f]{8}-", "", parts[-1]) if parts else ""
    return uploaded if uploaded in ids else None


def _pngs(folder: Path, classes: int) -> Returned:
    for path in sorted(folder.rglob("*.png")):
        labels = read_mask(path)
        beyond = sorted({int(label) for label in np.unique(labels)} - {*range(classes + 1), IGNORE})
        if beyond:
            raise UserError(
                f"{path}: has labels beyond the {classes} classes: {listed([*map(str, beyond)], ', ')}"
            )
        yield path.relative_to(folder).as_posix(), labels


def _cvat(file: Path, classes: Sequence[str]) -> Returned:
    """Colours by ``labelmap.txt``: ``name:r,g,b:parts:actions`` a line."""
    with _damage_named(file), zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if re.search(r"SegmentationClass/.+\.png$", name)]
        maps = [name for name in archive.namelist() if PurePosixPath(name).name == "labelmap.txt"]
        if not (names and maps):
            raise UserError(
                f"{file}: no labelmap.txt and SegmentationClass/; expected CVAT's 'Segmentation mask 1.1'"
            )
        table = np.full(1 << 24, IGNORE, np.uint8)
        lines = archive.read(maps[0]).decode(errors="replace").splitlines()
        for name, colour in (
            line.split(":")[:2] for line in lines if ":" in line and not line.startswith("#")
        ):
            table[_packed(np.array(colour.split(","), np.uint8))] = _label(file, name, classes)
        for name in names:
            labels = table[_packed(decode_image(archive.read(name), Path(f"{file}/{name}")))]
            if (labels == IGNORE).any():
                raise UserError(f"{file}/{name}: has colours that labelmap.txt does not name")
            yield name.rpartition("SegmentationClass/")[2], labels


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, ValueError, OverflowError) as error:
        raise UserError(f"{file}: damaged, or not as CVAT writes it ({error}); export it again") from None


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(..., 3) RGB -> (...) one number each."""
    return np.asarray(colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1]))


def _coco(file: Path, document: Mapping[str, Any], classes: Sequence[str], fingerprint: str) -> Returned:
    info = document.get("info")
    if isinstance(info, dict) and re.match("(masks|predictions) of split", str(info.get("description"))):
        _check_export(file, str(info.get("version")), fingerprint)
    found = read_instances(file)
    labels = {number: _label(file, found.categories[number], classes) for number in found.categories}
    for image in found.images:
        own = bytes(labels[category] for category in image.categories)
        yield image.file_name, CocoMask(file, found.stamp, image.id, image.size, image.regions, own).read()


class _Brush(msgspec.Struct):
    rle: list[int] = []
    brushlabels: list[str] = []


class _Result(msgspec.Struct):
    original_width: int = 0
    original_height: int = 0
    value: _Brush = msgspec.field(default_factory=_Brush)


class _Annotation(msgspec.Struct):
    was_cancelled: bool = False
    result: list[_Result] = []
    model_version: str = ""


class _Task(msgspec.Struct):
    data: dict[str, Any]
    annotations: list[_Annotation] = []
    predictions: list[_Annotation | int] = []  # numbers where the export leaves them out


def _label_studio(file: Path, document: list[Any], classes: Sequence[str], fingerprint: str) -> Returned:
    """The latest annotation of each task; a task that nobody has finished says nothing."""
    try:
        tasks = msgspec.convert(document, list[_Task])
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: not of Label Studio's form ({error}); export the project as JSON") from None
    for task in tasks:
        for prediction in task.predictions:
            if isinstance(prediction, _Annotation) and re.search(r" [0-9a-f]{16}$", prediction.model_version):
                _check_export(file, prediction.model_version.rpartition(" ")[2], fingerprint)
        done = [annotation for annotation in task.annotations if not annotation.was_cancelled]
        image = str(task.data.get("image", ""))
        if done:
            results = [result for result in done[-1].result if result.value.rle]
            size = (results[0].original_height, results[0].original_width) if results else (0, 0)
            labels = np.zeros(size, np.uint8)
            for result in results:
                for name in result.value.brushlabels:
                    labels[brush_mask(result.value.rle, size, f"{file}: {image}")] = _label(
                        file, name, classes
                    )
            yield image, labels


def brush_mask(rle: Sequence[int], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """What `formats.brush_rle` packs, and Label Studio: pixels (H, W) whose fourth value, the opacity, is not 0.

    Runs may also be of different values: 0 instead of 1, the index of a size, a length, then the values.

    Raises:
        UserError: not run lengths of so many pixels; ``where`` is named.
    """
    bits = np.unpackbits(np.array(rle, np.uint8))
    place, values = 0, np.zeros(4 * size[0] * size[1], np.uint8)

    def number(length: int) -> int:
        nonlocal place
        place += length
        return int("".join(map(str, bits[place - length : place])) or "0", 2)

    total, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    done = 0
    while total == len(values) and done < total and place < len(bits):
        same = number(1)
        run = number(sizes[number(2)]) + 1
        if same:
            values[done : done + run] = number(word)
        else:
            different = bits[place : place + run * word].reshape(-1, word)
            values[done : done + len(different)] = np.packbits(different, axis=1)[:, 0]
            place += run * word
        done += run
    if done != len(values):
        raise UserError(f"{where}: its brush is not of {size[1]}x{size[0]} pixels; export the project again")
    return np.asarray(values[3::4].reshape(size) > 0)


def _check_export(file: Path, version: str, fingerprint: str) -> None:
    if version != fingerprint:
        raise UserError(
            f"{file}: was made of an export of other masks ({version}; this run's are {fingerprint}), so what changed "
            "cannot be told; import it into the run as it was, or export --from masks again"
        )


def _label(file: Path, name: str, classes: Sequence[str]) -> int:
    """The label of a class's name; 0 for background, which CVAT lists."""
    if name == "background":
        return 0
    if name not in classes:
        raise UserError(f"{file}: class {name!r} is none of this run's: {listed(classes, ', ')}")
    return classes.index(name) + 1


def _folder(run: FinishedRun, out: Path | None) -> OutputFolder:
    """Where corrections go: as told, where the run has some already, or in its own folder."""
    data = run.config.data
    if out is None and not data.corrections:
        return OutputFolder(run.workspace.output.place(f"{run.name}/corrections/"))
    return OutputFolder((out or Path(data.root) / data.corrections).expanduser().resolve())


def _write(folder: OutputFolder, corrections: Mapping[str, Labels]) -> None:
    """Write each, on top of what an earlier one of that image says."""
    targets = {image_id: f"{image_id}.png" for image_id in corrections}
    folder.hold(targets.values())
    for image_id, said in corrections.items():
        path = folder.root / targets[image_id]
        earlier = read_mask(path) if path.exists() else said
        merged = np.where(said == IGNORE, earlier, said) if earlier.shape == said.shape else said
        with atomic_path(path) as temporary:
            temporary.write_bytes(encode_mask(merged))
