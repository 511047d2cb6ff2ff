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
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save
from scipy.io import savemat

from data import open_dataset
from data.images import read_image, read_mask
from data.masks import SbdMask
from data.own import inspect_folder
from run_pipeline import main
from tests.coco_trees import make_coco_tree
from tests.pipelines import ROOT
from tests.reports import synthetic_run
from tests.trees import make_folder_tree, make_voc_tree
from wsss.config import DataConfig, load_config, to_toml
from wsss.errors import UserError
from wsss.model.backbone import create_backbone
from wsss.store.artifacts import Artifact, DamagedArtifactError, Stamp, write_artifact

import timm  # isort: skip - after wsss.model.backbone, which guards torchvision

pytestmark = pytest.mark.slow
SECONDS, BYTES, LARGEST = 60, 2 << 30, 20_000_000  # of reading; of memory for it; of a mutated file
Read = Callable[[Path], object]
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks get their right checksums: otherwise little of a mutated one is read."""
    parts, at = [data[:8]], 8
    while at + 12 + (length := int.from_bytes(data[at : at + 4], "big")) <= len(data):
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        at += 12 + length
    return b"".join(parts) + data[at:]


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    image.save(buffer := BytesIO(), name, **options)
    return buffer.getvalue()


COLOURS = [Image.fromarray(PIXELS).convert(mode) for mode in ("RGB", "RGBA", "P", "1", "CMYK")]
GRAYS = [Image.fromarray(PIXELS[:, :, 0] % 4), Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 200)]
(EXIF := Image.Exif())[0x0112] = 6
PNGS = [encoded(image, "PNG") for image in (*COLOURS[:4], *GRAYS)]
JPEGS = [encoded(COLOURS[0], "JPEG", exif=EXIF), encoded(COLOURS[4], "JPEG", progressive=True)]
OTHERS = [encoded(COLOURS[0], name) for name in ("GIF", "BMP", "TIFF", "WEBP")]
savemat(MAT := BytesIO(), {"GTcls": {"Segmentation": PIXELS[:, :, 0] % 4}})
PRESETS = [path.read_bytes() for path in sorted(ROOT.glob("configs/*.toml"))]


def images() -> list[bytes]:
    """Images of huge sides, of little data that becomes much, and a program."""
    (text := PngInfo()).add_text("k", " " * 300_000_000, zip=True)
    bombs = [
        encoded(GRAYS[0], "PNG", **each) for each in ({"pnginfo": text}, {"icc_profile": bytes(300_000_000)})
    ]
    huge = with_checksums(PNGS[0][:16] + struct.pack(">II", 60_000, 60_000) + PNGS[0][24:])
    return [
        huge,
        *bombs,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%touch x) (w) file\n",
    ]


ENTITIES = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
XML = [
    b"<!DOCTYPE a [" + ENTITIES + b"]><annotation><object><name>&l9;</name></object></annotation>",
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><name>&x;</name></annotation>',
    b"<annotation>" + b"<object>" * 100_000,
    b"<annotations><image name='../../../etc/passwd'><tag label='a'/></image></annotations>",
]
CSV = [
    b"image,tags\n" + row for row in (b"../../etc/passwd,cat", b"a" * 300 + b",cat", b'"' + b"x" * 200_000)
]
TOML = [b"a = " + b"[" * 5000, b"seed = " + b"9" * 10_000, b"[data]\nroot = '%s'" % (b"a" * 5000)]
ONE = b'{"images": [{"id": 1, "file_name": "%s", "height": %s, "width": 8}], "annotations": [], "categories": []}'
JSON = [
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"x": ' + b"9" * 10_000 + b"}", b"NaN", b'"text"', b"\xff\xfe{}"),
    *(ONE % (b"../../../etc/passwd", b"8"), ONE % (b"a.jpg", b"99999999")),
]


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def saved(state: object, *, zipped: bool = True) -> bytes:
    torch.save(state, buffer := BytesIO(), _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def weights() -> list[bytes]:
    """State dicts with timm's names, and code instead."""
    state = timm.create_model("test_resnet").state_dict()
    codes = [saved({"w": Code()}), saved({"w": Code()}, zipped=False), pickle.dumps(Code()), b"\x80\x02]."]
    return [saved(state), saved(state, zipped=False), save(state), *codes]


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


class ForbiddenError(BaseException):
    """Not an Exception, so that nobody's ``except Exception`` hides it."""


FORBIDDEN = (
    "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
may_write: tuple[str, ...] = ()
"""Where files may be written while one is read; empty at other times."""


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not may_write or event not in ("open", "os.remove", "os.rename", *FORBIDDEN):
        return
    path, mode, flags = arguments if event == "open" else (arguments[0], "w", 0)
    writes = any(letter in (mode or "") for letter in "wax+") or (flags or 0) & WRITING
    if writes and not isinstance(path, int):
        writes = not f"{os.path.realpath(os.fsdecode(path))}/".startswith(may_write)
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


def survive(file: Path, contents: Sequence[bytes], read: Read, *, named: bool, folder: Path) -> None:
    """Read all contents from a file of a folder, and mutations of them; if ``named`` every message has its name."""

    def attempt(content: bytes) -> None:
        file.write_bytes(content)
        message = str(file)
        with confined(folder):
            try:
                read(file)
            except (UserError, DamagedArtifactError) as error:
                message = str(error)
        assert message.count("\n") < 3
        assert str(file) in message or not named

    for content in contents:
        attempt(content)
    settings(max_examples=settings().max_examples // 4)(given(mutated(contents))(attempt))()


def backbone(file: Path) -> object:
    return create_backbone("test_resnet", weights=str(file), output_stride=32)


FILES: dict[str, tuple[Read, Callable[[], list[bytes]]]] = {
    "image.png": (read_image, lambda: PNGS + images()),
    "image.jpg": (read_image, lambda: JPEGS + OTHERS + images()),
    "mask.png": (read_mask, lambda: PNGS + images()),
    "mask.mat": (lambda file: SbdMask(file).examine(), lambda: [MAT.getvalue()]),
    "weights.pth": (backbone, weights),
    "weights.safetensors": (backbone, weights),
    "config.toml": (lambda file: to_toml(load_config(file, [])), lambda: PRESETS + TOML),
}


@pytest.mark.parametrize("name", FILES)
def test_single_files(name: str, tmp_path: Path) -> None:
    read, contents = FILES[name]
    survive(tmp_path / name, contents(), read, named=name != "config.toml", folder=tmp_path)


CSV_OF_SOMEBODY = (
    b"file;label;set\ntrain_000.jpg;cat|dog;train\ntrain_001.jpg;dog;train\nval_002.jpg;cat;val\n"
)
CVAT = b"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<image id="0" name="train_000.jpg" subset="train" width="48" height="36"><tag label="cat"/></image>
<image id="1" name="train_001.jpg" width="9" height="9"><box label="dog" xtl="1" ytl="2" xbr="9" ybr="9"/></image>
</annotations>"""
LABEL_STUDIO = b"""[{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-train_000.jpg"}, "annotations": [{"id": 5,
"was_cancelled": false, "result": [{"type": "choices", "value": {"choices": ["cat", "dog"]}}]}]}]"""


def own(name: str, content: bytes, folder: Path) -> Callable[[], object]:
    """Images and a list as somebody has collected them; what `init` makes of the folder."""
    make_folder_tree(folder / "tree", n_train=2, n_val=1, size=(8, 8), masks=False)
    (folder / "tree" / "images").rename(folder / "photos")
    shutil.rmtree(folder / "tree")
    (folder / name).write_bytes(content)
    return lambda: inspect_folder(folder)


def opened(make: Callable[[Path], DataConfig], folder: Path) -> Callable[[], object]:
    """A data set; opening it, and drawing its masks."""
    data = make(folder)
    return lambda: [sample.mask.read() for sample in open_dataset(data).samples if sample.mask]


LISTS: dict[str, tuple[Callable[[Path], Callable[[], object]], list[bytes]]] = {
    "labels.csv": (partial(opened, partial(make_folder_tree, n_train=3, n_val=1, size=(8, 8))), CSV),
    "Annotations/2007_000000.xml": (partial(opened, partial(make_voc_tree, n_train=2, n_val=1)), XML),
    "annotations/instances_train2017.json": (partial(opened, make_coco_tree), JSON),
    "list.csv": (partial(own, "list.csv", CSV_OF_SOMEBODY), CSV),
    "annotations.xml": (partial(own, "annotations.xml", CVAT), XML),
    "tasks.json": (partial(own, "tasks.json", LABEL_STUDIO), JSON),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists(name: str, tmp_path: Path) -> None:
    make, hostile = LISTS[name]
    read, file = make(tmp_path), tmp_path / name
    survive(file, [file.read_bytes(), *hostile], lambda _: read(), named=False, folder=tmp_path)


def test_artifacts(tmp_path: Path) -> None:
    stamp = Stamp(stage="cams", version=1, seed=0, data="d", config={"a": 1}, inputs={}, classes=("größer",))
    arrays = {"maps": np.ones((2, 5, 4), np.float16), "masks": PIXELS[:, :, 0]}
    write_artifact(tmp_path / "a.h5", stamp, images=[("a", arrays), ("b/ö", arrays)])
    sound = (tmp_path / "a.h5").read_bytes()

    def read(file: Path) -> None:
        with contextlib.closing(Artifact(file)) as found:
            assert all(found.read(image_id, name).size for image_id in found.ids for name in arrays)

    survive(tmp_path / "a.h5", [sound, *hostile_hdf5(sound)], read, named=True, folder=tmp_path)


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
        ("other/report.json", ("compare", "base", "other", "--resamples", "100")),
        ("scores/segment-*.json", ("report", "base")),
        ("files-*.json", ("status", "--name", "base")),
    ],
)
def test_records_of_the_workspace(pattern: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path / "data", n_train=3, n_val=2, size=(16, 16))
    for name, shift in (("base", 3), ("other", 5)):
        synthetic_run(data, tmp_path / "ws", name=name, shift=shift)
    (file, *_) = (tmp_path / "ws").glob(pattern)

    read = partial(command, *arguments, "--workspace", tmp_path / "ws")
    survive(file, [file.read_bytes(), *JSON], lambda _: read(), named=False, folder=tmp_path)
