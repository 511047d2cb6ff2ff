"""One entry point of the program per kind of file that somebody else may have written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torture.fuzz import hostile, images, listings, networks, records
from torture.fuzz.mutations import Random, mutated


@dataclass(frozen=True)
class Target:
    """Something that reads a file.

    Attributes:
        file: the file that is spoilt.
        seeds: healthy contents.
        attempt: reads the file as the program does.
        text: whether it is a text, to be spoilt in words too.
        hostile: contents made to attack, tried first.
        mend: makes a spoilt file plausible again, so that it is read beyond its checksums.
    """

    file: Path
    seeds: Sequence[bytes]
    attempt: Callable[[], object]
    text: bool = False
    hostile: Sequence[bytes] = field(default_factory=list)
    mend: Callable[[bytes], bytes] | None = None


def case_of(target: Target, number: int, random: Random) -> bytes:
    """The content of a case: healthy ones, then hostile ones, then mutations."""
    known = [*target.seeds, *target.hostile]
    if number < len(known):
        return known[number]
    content = mutated(known[int(random.integers(len(known)))], random, text=target.text)
    return target.mend(content) if target.mend and random.random() < 0.7 else content


def prepared(name: str, folder: Path) -> Target:
    """A target with all that it needs in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return TARGETS[name](folder)


def _csv(folder: Path) -> Target:
    file = listings.folder_tree(folder)
    return Target(
        file, [file.read_bytes()], lambda: listings.read_folder(folder), text=True, hostile=hostile.CSV
    )


def _own_csv(folder: Path) -> Target:
    file = listings.own_folder(folder, "list.csv", listings.OWN_CSV)
    return Target(file, [listings.OWN_CSV], lambda: listings.look(folder), text=True, hostile=hostile.CSV)


def _toml(folder: Path) -> Target:
    seeds, attempt = listings.configuration(folder / "c.toml")
    return Target(folder / "c.toml", seeds, attempt, text=True, hostile=hostile.TOML)


def _voc_xml(folder: Path) -> Target:
    file, attempt = listings.voc_tree(folder)
    return Target(file, [file.read_bytes()], attempt, text=True, hostile=hostile.XML)


def _cvat_xml(folder: Path) -> Target:
    file = listings.own_folder(folder, "annotations.xml", listings.CVAT)
    return Target(file, [listings.CVAT], lambda: listings.look(folder), text=True, hostile=hostile.XML)


def _coco_json(folder: Path) -> Target:
    file, attempt = listings.coco_tree(folder)
    return Target(file, [file.read_bytes()], attempt, text=True, hostile=hostile.JSON)


def _label_studio_json(folder: Path) -> Target:
    file = listings.own_folder(folder, "tasks.json", listings.LABEL_STUDIO)
    seeds = [listings.LABEL_STUDIO, listings.LABEL_STUDIO_MINIMAL]
    return Target(file, seeds, lambda: listings.look(folder), text=True, hostile=hostile.JSON)


def _png(folder: Path) -> Target:
    file = folder / "a.png"
    return Target(
        file, images.pngs(), lambda: images.read(file), hostile=hostile.IMAGES, mend=images.png_mended
    )


def _mask_png(folder: Path) -> Target:
    file = folder / "m.png"
    return Target(
        file, images.masks(), lambda: images.read_labels(file), hostile=hostile.IMAGES, mend=images.png_mended
    )


def _jpeg(folder: Path) -> Target:
    file = folder / "a.jpg"
    return Target(file, images.jpegs(), lambda: images.read(file), hostile=hostile.IMAGES)


def _sbd_mat(folder: Path) -> Target:
    file = folder / "m.mat"
    return Target(file, [images.sbd_mask()], lambda: images.read_sbd(file))


def _hdf5(folder: Path) -> Target:
    seeds, attempt = networks.artifact(folder / "a.h5")
    return Target(folder / "a.h5", seeds, attempt, hostile=hostile.hdf5(folder))


def _checkpoint(folder: Path) -> Target:
    seed, attempt = networks.checkpoint(folder)
    return Target(folder / "a.h5.checkpoint", [seed], attempt, hostile=hostile.hdf5(folder))


def _network(folder: Path) -> Target:
    seed, attempt = networks.deployed(folder / "n.h5")
    return Target(folder / "n.h5", [seed], attempt, hostile=hostile.hdf5(folder))


def _pth(folder: Path) -> Target:
    seeds, attempt = networks.weights(folder / "w.pth", safe=False)
    return Target(folder / "w.pth", seeds, attempt, hostile=hostile.pickles(folder))


def _safetensors(folder: Path) -> Target:
    seeds, attempt = networks.weights(folder / "w.safetensors", safe=True)
    return Target(folder / "w.safetensors", seeds, attempt, hostile=hostile.pickles(folder))


def _onnx(folder: Path) -> Target:
    seeds, attempt = networks.onnx_model(folder / "m.onnx")
    return Target(folder / "m.onnx", seeds, attempt)


def _report_json(folder: Path) -> Target:
    file, seed, attempt = records.report(folder)
    return Target(file, [seed], attempt, text=True, hostile=hostile.JSON)


def _run_json(folder: Path) -> Target:
    file, seed, attempt = records.run_record(folder)
    return Target(file, [seed], attempt, text=True, hostile=hostile.JSON)


def _scores_json(folder: Path) -> Target:
    file, seed, attempt = records.scores(folder)
    return Target(file, [seed], attempt, text=True, hostile=hostile.JSON)


def _index_json(folder: Path) -> Target:
    file, seed, attempt = records.file_index(folder)
    return Target(file, [seed], attempt, text=True, hostile=hostile.JSON)


def _predict_json(folder: Path) -> Target:
    file, seed, attempt = records.prediction(folder)
    return Target(file, [seed], attempt, text=True, hostile=hostile.JSON)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "csv": _csv,
    "own-csv": _own_csv,
    "toml": _toml,
    "voc-xml": _voc_xml,
    "cvat-xml": _cvat_xml,
    "coco-json": _coco_json,
    "label-studio-json": _label_studio_json,
    "png": _png,
    "mask-png": _mask_png,
    "jpeg": _jpeg,
    "sbd-mat": _sbd_mat,
    "hdf5": _hdf5,
    "checkpoint": _checkpoint,
    "network": _network,
    "pth": _pth,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "report-json": _report_json,
    "run-json": _run_json,
    "scores-json": _scores_json,
    "index-json": _index_json,
    "predict-json": _predict_json,
}
