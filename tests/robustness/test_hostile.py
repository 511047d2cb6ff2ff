"""Files of others, hostile or mutated by Hypothesis: reading one succeeds, or ends in a short message that names it.

It never ends in another exception, takes a minute or 2 GiB, unpickles, starts a program, connects to anything, or
writes outside of its own folder.
"""

import contextlib
import faulthandler
import os
import pickle
import re
import resource
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from scipy.io import savemat

from data import open_dataset
from data.images import read_image, read_mask
from data.masks import SbdMask
from data.own import inspect_folder
from run_pipeline import main
from tests.coco_trees import make_coco_tree
from tests.pipelines import ROOT
from tests.products import Product
from tests.reports import synthetic_run
from tests.trees import make_folder_tree, make_voc_tree
from wsss.config import DataConfig, load_config, to_toml
from wsss.errors import UserError
from wsss.model.backbone import create_backbone
from wsss.store.artifacts import Artifact, DamagedArtifactError, Stamp, write_artifact

import timm  # isort: skip - after wsss.model.backbone, which guards torchvision

pytestmark = pytest.mark.slow
SECONDS, BYTES, LARGEST = 60, 2 << 30, 20_000_000
"""What reading a file may take, the bytes beyond those of the process before; bytes of a mutated file."""
Survive = Callable[..., None]
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


# Hostile contents


def png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + kind + body + b"1234" for kind, body in chunks]
    return with_checksums(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks get their right checksums: otherwise little of a mutated one is read."""
    parts, at = [data[:8]], 8
    while at + 12 + (length := int.from_bytes(data[at : at + 4], "big")) <= len(data):
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        at += 12 + length
    return b"".join(parts) + data[at:]


BOMB = b"k\0\0" + zlib.compress(bytes(300_000_000))
IMAGES = [
    *(png(60_000, 60_000, bytes(1_000_000)), png(2**31 - 1, 2**31 - 1, b""), png(8, 8, bytes(300_000_000))),
    *(png(8, 8, bytes(200), (kind, BOMB)) for kind in (b"zTXt", b"iCCP")),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%touch x) (w) file\nshowpage\n%%EOF\n",
]
ENTITIES = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
XML = [
    b"<!DOCTYPE a [" + ENTITIES + b"]><annotation><object><name>&l9;</name></object></annotation>",
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><name>&x;</name></annotation>',
    b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x"><annotations><image name="a"/></annotations>',
    b"<annotation>" + b"<object>" * 100_000,
    b"<annotations><image name='../../../etc/passwd'><tag label='a'/></image></annotations>",
]
MANY = b";".join(b"%d" % number for number in range(70_000))
ROWS = (
    b"../../etc/passwd,cat",
    b"a" * 300 + b",cat",
    b"\0,cat",
    b'"' + b"x" * 200_000 + b'",cat',
    b"a.jpg," + MANY,
)
CSV = [b"image,tags\n" + row for row in ROWS]
TOML = [
    *(b"a = " + b"[" * 5000, b"seed = " + b"9" * 10_000),
    *(b'[data]\nroot = "a\\u0000b"', b"[data]\nroot = '%s'" % (b"a" * 5000), b"[classify]\nlr = inf"),
    b"[cams]\nscales = [" + b"1.0," * 100_000 + b"]",
]
ONE = b'{"images": [{"id": 1, "file_name": "%s", "height": %s, "width": 8}], "annotations": [], "categories": []}'
JSON = [
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"x": ' + b"9" * 10_000 + b"}", b"NaN", b'"text"', b"\xff\xfe{}"),
    *(ONE % (b"../../../etc/passwd", b"8"), ONE % (b"a.jpg", b"99999999")),
    b'[{"id": 1, "data": {"image": "http://127.0.0.1:9/a.jpg"}, "annotations": []}]',
]


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def saved(state: object, *, zipped: bool = True) -> bytes:
    torch.save(state, buffer := BytesIO(), _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


PICKLES = [saved({"w": Code()}), saved({"w": Code()}, zipped=False), pickle.dumps(Code()), b"\x80\x02]."]


def hostile_hdf5(sound: bytes) -> Iterator[bytes]:
    """An artifact whose maps are links to other places, huge when unpacked, or of kinds that are none of ours."""
    huge: dict[str, Any] = {"shape": (2**40,), "dtype": "f2", "chunks": (2**16,), "compression": "gzip"}
    links = h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink("/nowhere")
    for maps in (*links, np.array([b"x", b"yy"]), h5py.Empty("f4"), None):
        with h5py.File(buffer := BytesIO(sound), "r+") as file:
            del file["maps/000000"]
            if maps is None:
                file.create_dataset("maps/000000", **huge)
            else:
                file["maps/000000"] = maps
        yield buffer.getvalue()


# Mutations

NASTY = (
    b"../../x", b"/etc/passwd", b"\0", b"a" * 300, b"<script>", b'"', b"\xff\xfe", b"-1", b"0", b"1e999", b"NaN",
    b"9" * 30, b"9" * 5000, b"null", b"[]", b"{}", b"[" * 3000, b'{"a":' * 2000, b"\r", b"\n", b"\t", b";;", b",",
    b"&x;", b"<!DOCTYPE a>", b"]]>", b"\x1b[2J", "\u202e".encode(), "e\u0301".encode(), b"\\ud800", b"~", b"%n",
    *(number.to_bytes(size, "little") for number in (0, 1, 127, 128, 255) for size in (2, 4)),
    *(number.to_bytes(8, "big") for number in (2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**64 - 1)),
)  # fmt: skip
"""What parsers, paths, pages and terminals stumble over."""


@st.composite
def mutated(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """A content of which one to four parts, or words of a text, are replaced, removed or repeated."""
    data = draw(st.sampled_from(contents))
    for _ in range(draw(st.integers(1, 4))):
        words = [] if b"\0" in data else [word.span() for word in re.finditer(rb"[\w.-]+", data[:100_000])]
        by_word = draw(st.booleans())
        if words and by_word:
            start, end = draw(st.sampled_from(words))
        else:
            start = draw(st.integers(0, len(data)))
            end = start + draw(st.sampled_from((0, 1, 4, 30, 300, len(data))))
        new = st.sampled_from(NASTY) | st.binary(max_size=8) | st.sampled_from((b"", data[start:end] * 20))
        data = (data[:start] + draw(new) + data[end:])[:LARGEST]
    return with_checksums(data) if data[1:4] == b"PNG" and draw(st.booleans()) else data


# Limits


class ForbiddenError(BaseException):
    """Not an Exception, so that nobody's ``except Exception`` hides it."""


FORBIDDEN = (
    "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect",
)  # fmt: skip
CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
may_write: tuple[str, ...] = ()
"""Where files may be written while one is read; empty at other times."""


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not may_write or event not in ("open", *FORBIDDEN, *CHANGES):
        return
    _, mode, flags = arguments if event == "open" else (None, "", 0)
    writes = event in CHANGES or any(letter in (mode or "") for letter in "wax+") or (flags or 0) & WRITING
    if writes and not isinstance(arguments[0], int):
        writes = not f"{os.path.realpath(os.fsdecode(arguments[0]))}/".startswith(may_write)
    if event in FORBIDDEN or writes:
        raise ForbiddenError(f"{event}{arguments[:2]!r}")


sys.addaudithook(audit)


@contextlib.contextmanager
def confined(folder: Path) -> Iterator[None]:
    """Limits of time, memory and of what may be done; a reader that does not come back ends the tests."""
    global may_write
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    may_write = (f"{os.path.realpath(folder)}/", "/dev/null/", "/dev/shm/")
    try:
        yield
    finally:
        may_write = ()
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def survive(tmp_path: Path) -> Survive:
    """Reads all contents from a file, and mutations of them; with ``named`` every message has the file's name."""

    def all_of(
        file: Path, contents: Sequence[bytes], read: Callable[[Path], object], *, named: bool = True
    ) -> None:
        def attempt(content: bytes) -> None:
            file.write_bytes(content)
            message = str(file)
            with confined(tmp_path):
                try:
                    read(file)
                except (UserError, DamagedArtifactError) as error:
                    message = str(error)
            assert message.count("\n") < 3
            assert str(file) in message or not named

        for content in contents:
            attempt(content)
        settings(max_examples=settings().max_examples // 4)(given(mutated(contents))(attempt))()

    return all_of


# What reads them


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    image.save(buffer := BytesIO(), name, **options)
    return buffer.getvalue()


COLOURS = [Image.fromarray(PIXELS).convert(mode) for mode in ("RGB", "RGBA", "P", "1", "CMYK")]
GRAYS = [Image.fromarray(PIXELS[:, :, 0] % 4), Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 200)]
(EXIF := Image.Exif())[0x0112] = 6
PNGS = [encoded(image, "PNG") for image in (*COLOURS[:4], *GRAYS)]
JPEGS = [encoded(COLOURS[0], "JPEG", exif=EXIF), encoded(COLOURS[4], "JPEG", progressive=True)]
OTHERS = [encoded(COLOURS[0], name) for name in ("GIF", "BMP", "TIFF", "WEBP")]


@pytest.mark.parametrize(
    ("read", "sound"), [(read_image, PNGS), (read_image, JPEGS + OTHERS), (read_mask, PNGS)]
)
def test_images(read: Callable[[Path], object], sound: list[bytes], survive: Survive, tmp_path: Path) -> None:
    survive(tmp_path / "image", sound + IMAGES, read)


def test_masks_of_sbd(survive: Survive, tmp_path: Path) -> None:
    savemat(buffer := BytesIO(), {"GTcls": {"Segmentation": PIXELS[:, :, 0] % 4}}, do_compression=True)
    survive(tmp_path / "m.mat", [buffer.getvalue()], lambda file: SbdMask(file).examine())


def test_configurations(survive: Survive, tmp_path: Path) -> None:
    presets = [path.read_bytes() for path in sorted(ROOT.glob("configs/*.toml"))]
    survive(tmp_path / "c.toml", presets + TOML, lambda file: to_toml(load_config(file, [])), named=False)


LISTS: dict[str, tuple[Callable[[Path], DataConfig], list[bytes]]] = {
    "labels.csv": (partial(make_folder_tree, n_train=3, n_val=1, size=(8, 8)), CSV),
    "Annotations/2007_000000.xml": (partial(make_voc_tree, n_train=2, n_val=1, size=(8, 8)), XML),
    "annotations/instances_train2017.json": (make_coco_tree, JSON),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_data_sets(name: str, survive: Survive, tmp_path: Path) -> None:
    make, hostile = LISTS[name]
    data, file = make(tmp_path), tmp_path / name

    def read(_: Path) -> object:
        return [sample.mask.read() for sample in open_dataset(data).samples if sample.mask]

    survive(file, [file.read_bytes(), *hostile], read, named=False)


OWN = {
    "list.csv": b"file;label;set\ntrain_000.jpg;cat|dog;train\ntrain_001.jpg;dog;train\nval_002.jpg;cat;val\n",
    "annotations.xml": b"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<image id="0" name="train_000.jpg" subset="train" width="48" height="36"><tag label="cat"/></image>
<image id="1" name="train_001.jpg" width="9" height="9"><box label="dog" xtl="1" ytl="2" xbr="9" ybr="9"/></image>
</annotations>""",
    "tasks.json": b"""[{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-train_000.jpg"}, "annotations": [{"id": 5,
"was_cancelled": false, "result": [{"type": "choices", "value": {"choices": ["cat", "dog"]}}]}]}]""",
}


@pytest.mark.parametrize("name", OWN)
def test_lists_of_somebody(name: str, survive: Survive, tmp_path: Path) -> None:
    make_folder_tree(tmp_path / "tree", n_train=2, n_val=1, size=(8, 8), masks=False)
    (tmp_path / "tree" / "images").rename(tmp_path / "photos")
    shutil.rmtree(tmp_path / "tree")
    hostile = {".csv": CSV, ".xml": XML, ".json": JSON}[Path(name).suffix]
    survive(tmp_path / name, [OWN[name], *hostile], lambda file: inspect_folder(file.parent), named=False)


def test_artifacts(survive: Survive, tmp_path: Path) -> None:
    stamp = Stamp(stage="cams", version=1, seed=0, data="d", config={"a": 1}, inputs={}, classes=("größer",))
    arrays = {"maps": np.ones((2, 5, 4), np.float16), "masks": PIXELS[:, :, 0]}
    network = {"weight": np.ones((3, 4), np.float32), "steps": np.asarray(7)}
    write_artifact(
        tmp_path / "a.h5", stamp, groups={"network": network}, images=[("a", arrays), ("b/ö", arrays)]
    )
    sound = (tmp_path / "a.h5").read_bytes()

    def read(file: Path) -> None:
        with contextlib.closing(Artifact(file)) as found:
            found.group("network")
            for image_id in found.ids:
                found.read(image_id, "maps")

    survive(tmp_path / "a.h5", [sound, *hostile_hdf5(sound)], read)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights(name: str, survive: Survive, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    sound = [save(state)] if name == "w.safetensors" else [saved(state), saved(state, zipped=False)]

    def read(file: Path) -> object:
        return create_backbone("test_resnet", weights=str(file), output_stride=32)

    survive(tmp_path / name, sound + PICKLES, read)


def command(*arguments: object) -> None:
    """A command of the program. Raises UserError with the message of one that fails."""
    with contextlib.redirect_stdout(said := StringIO()), contextlib.redirect_stderr(said):
        status = main([str(argument) for argument in arguments])
    text = said.getvalue()
    assert "--debug" not in text, text  # the program blames itself
    if status:
        raise UserError(text[text.rindex("error: ") :].strip())


@pytest.mark.parametrize(
    ("pattern", "arguments"),
    [
        ("base/run.json", ("status", "--name", "base")),
        ("base/run.json", ("prune", "--dry-run")),
        ("other/report.json", ("compare", "base", "other", "--resamples", "100")),
        ("scores/segment-*.json", ("report", "base")),
        ("files-*.json", ("status", "--name", "base")),
    ],
)
def test_records_of_the_workspace(
    pattern: str, arguments: tuple[str, ...], survive: Survive, tmp_path: Path
) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=2, size=(16, 16))
    for name, shift in (("base", 3), ("other", 5)):
        synthetic_run(data, tmp_path / "ws", name=name, shift=shift)
    (file, *_) = (tmp_path / "ws").glob(pattern)

    def read(_: Path) -> None:
        command(*arguments, "--workspace", tmp_path / "ws")

    survive(file, [file.read_bytes(), *JSON], read, named=False)


def test_exported_networks(product: Product, survive: Survive, tmp_path: Path) -> None:
    command(*product.arguments("export", "tiny", "--format", "onnx", "--out", tmp_path / "out"))
    (exported,) = (tmp_path / "out").glob("*.onnx")
    image = next(product.images.iterdir())

    def read(file: Path) -> None:
        command("predict", "--onnx", file, image, "--out", tmp_path / "masks", "--force")

    survive(tmp_path / "m.onnx", [exported.read_bytes()], read)
