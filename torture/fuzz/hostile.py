"""Files made to attack: entity expansion, decompression bombs, code in pickles, paths that lead elsewhere."""

import pickle
import struct
import zlib
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

_BILLION = b'<!DOCTYPE a [<!ENTITY l0 "lol">' + b"".join(
    b'<!ENTITY l%d "%s">' % (level, b"&l%d;" % (level - 1) * 10) for level in range(1, 10)
)
XML = [
    b'<?xml version="1.0"?>' + _BILLION + b"]><annotation><object><name>&l9;</name></object></annotation>",
    b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>',
    b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x"><annotations><image name="a"><tag label="b"/></image></annotations>',
    b"<annotation>" + b"<object>" * 100_000,
    b"<annotations><image name='../../../etc/passwd'><tag label='a'/></image></annotations>",
    b'<?xml version="1.0" encoding="utf-7"?><annotation/>',
]
CSV = [
    b"image,tags\n../../../etc/passwd,cat\n",
    b"image,tags\n/etc/passwd,cat\n",
    b"image,tags\n" + b"a" * 300 + b".jpg,cat\n",
    b"image,tags\ntrain_000\x00.jpg,cat\n",
    b"image,tags\ntrain_000.jpg," + b";".join(b"c%d" % i for i in range(70_000)) + b"\n",
    b'image,tags\n"' + b"x" * 200_000 + b'",cat\n',
    b"image,tags\n" + b"/".join([b"d"] * 3000) + b".jpg,cat\n",
]
TOML = [
    b"a = " + b"[" * 5000,
    b"seed = " + b"9" * 10_000,
    b"[data]\nroot = '\\u0000'\n",
    b'[data]\nroot = "a\\u0000b"\n',
    b"[data]\nroot = '" + b"a" * 5000 + b"'\n",
    b"[cams]\nscales = [" + b"1.0," * 100_000 + b"]\n",
    b"a" + b".a" * 5000 + b" = 1\n",
    b"[classify]\nlr = inf\n",
    b"[classify]\nlong_side = []\n",
    b"[classify]\nlong_side = [1]\n",
]
JSON = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"images": [{"id": 1, "file_name": "../../../etc/passwd", "height": 8, "width": 8}], "annotations": [], '
    b'"categories": [{"id": 1, "name": "cat"}]}',
    b'{"images": [{"id": 1, "file_name": "a.jpg", "height": 99999999, "width": 99999999}], "annotations": [], '
    b'"categories": []}',
    b'{"x": ' + b"9" * 10_000 + b"}",
    b'[{"id": 1, "data": {"image": "http://127.0.0.1:9/a.jpg"}, "annotations": []}]',
    b"NaN",
    b'"text"',
    b"\xff\xfe{}",
]


def _png(width: int, height: int, data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), *more, (b"IDAT", data), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


IMAGES = [
    _png(60_000, 60_000, zlib.compress(bytes(1_000_000))),
    _png(2**31 - 1, 2**31 - 1, zlib.compress(bytes(100))),
    _png(8, 8, zlib.compress(bytes(300_000_000))),  # far more data than the picture needs
    _png(8, 8, zlib.compress(bytes(200)), (b"zTXt", b"k\0\0" + zlib.compress(bytes(300_000_000)))),
    _png(8, 8, zlib.compress(bytes(200)), (b"iCCP", b"k\0\0" + zlib.compress(bytes(300_000_000)))),
    _png(0, 0, b""),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%touch x) (w) file\nshowpage\n%%EOF\n",
    b"GIF89a" + b"\xff" * 7 + b"," + b"\xff" * 30,
]  # fmt: skip


def hdf5(folder: Path) -> list[bytes]:
    """Links to other files, arrays that are huge when unpacked, values of kinds that call for unpickling."""
    return [_links(folder), _bomb(folder), _foreign(folder)]


def _links(folder: Path) -> bytes:
    with h5py.File(folder / "made.h5", "w") as file:
        _stamp(file, ["a"])
        file["network"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["maps/000000"] = h5py.SoftLink("/nowhere")
        file.create_dataset("masks/000000", (64,), "u1", external=[("/etc/passwd", 0, 64)])
    return _taken(folder)


def _bomb(folder: Path) -> bytes:
    with h5py.File(folder / "made.h5", "w") as file:
        _stamp(file, ["a"])
        file.create_group("network")
        file.create_dataset("maps/000000", (2**40,), "f2", chunks=(2**16,), compression="gzip")
        packed = file.create_dataset(
            "masks/000000", (2**26, 2**8), "u1", chunks=(2**24, 1), compression="gzip", fillvalue=0
        )
        packed[:, 0] = 0
    return _taken(folder)


def _foreign(folder: Path) -> bytes:
    with h5py.File(folder / "made.h5", "w") as file:
        _stamp(file, ["../../x", "/etc/passwd", "a" * 300, "a\u202eb"])
        file["network"] = np.zeros(3)  # a data set where a group should be
        file["maps"] = h5py.Empty("f4")
        file["masks/000000"] = np.array([b"x", b"yy"])
    return _taken(folder)


def _stamp(file: h5py.File, ids: list[str]) -> None:
    for key, value in {"stage": "classify", "fingerprint": "f" * 16, "classes": '["cat"]'}.items():
        file.attrs[key] = value
    file.create_dataset("ids", data=ids, dtype=h5py.string_dtype("utf-8"))


def _taken(folder: Path) -> bytes:
    content = (folder / "made.h5").read_bytes()
    (folder / "made.h5").unlink()
    return content


class _Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (self.command,)


def pickles(folder: Path) -> list[bytes]:
    """Weight files that run a command when they are unpickled; the guard sees it, and so does the folder."""
    import torch

    code = _Code(f"touch '{folder}/executed'")
    buffer = BytesIO()
    torch.save({"weight": code}, buffer)
    legacy = BytesIO()
    torch.save({"weight": code}, legacy, _use_new_zipfile_serialization=False)
    return [buffer.getvalue(), legacy.getvalue(), pickle.dumps(code), b"\x80\x02]."]
