"""The folder that `predict` writes to: a record of settings, masks that carry a note of their making, pictures."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages import differences
from stages.commands.predict.inputs import Photograph
from wsss.errors import UserError, listed
from wsss.pictures import mask_note
from wsss.store.files import OutputFolder, atomic_path, write_text
from wsss.store.json_files import parse_json

RECORD = "predict.json"


def claim(
    out: OutputFolder,
    settings: Mapping[str, Any],
    photographs: Sequence[Photograph],
    *,
    overlay: bool,
    force: bool,
) -> None:
    """Make sure that nothing of another making is overwritten, and write the record of settings.

    Args:
        out: the folder.
        settings: all that the masks depend on beside the photographs and their tags.
        photographs: to be predicted.
        overlay: whether pictures are written too.
        force: whatever is there may be replaced.

    Raises:
        UserError: the folder holds masks made with other settings, foreign files under names of results, or links
            that lead out of it.
    """
    out.hold(_mask_name(photograph) for photograph in photographs)
    record = out.place(RECORD)
    if not force:
        before = _read_record(record)
        changed = differences(before, settings) if before is not None else []
        if changed:
            raise UserError(
                f"{record}: its masks were made with other settings ({listed(changed)}); "
                "give another --out, or --force to replace them"
            )
        foreign = [str(path) for path in _foreign(out, photographs, overlay=overlay)]
        if foreign:
            raise UserError(
                f"{len(foreign)} result file(s) exist and are none of this program's: {listed(foreign, ', ')}; "
                "give another --out, or --force to replace them"
            )
    try:
        write_text(record, json.dumps({"schema": 1, "settings": settings}, indent=1, ensure_ascii=False))
    except OSError as error:
        raise UserError(f"--out {out.root}: not writable ({error.strerror}); give another folder") from None


def mask_path(out: OutputFolder, photograph: Photograph) -> Path:
    """Where a photograph's mask goes. Raises UserError where a link leads out of the folder."""
    return out.place(_mask_name(photograph))


def overlay_path(out: OutputFolder, photograph: Photograph) -> Path:
    """Where its picture goes. Raises as `mask_path`."""
    return out.place(f"{photograph.id}.overlay.jpg")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _mask_name(photograph: Photograph) -> str:
    return f"{photograph.id}.png"


def _foreign(out: OutputFolder, photographs: Sequence[Photograph], *, overlay: bool) -> Iterator[Path]:
    for photograph in photographs:
        mask = mask_path(out, photograph)
        if mask_note(mask) is not None:
            continue
        picture = overlay_path(out, photograph)
        if os.path.lexists(mask):  # a link that leads nowhere is somebody's too
            yield mask
        elif overlay and os.path.lexists(picture) and not out.place(RECORD).exists():
            yield picture


def _read_record(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        settings = parse_json(path.read_bytes())["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the record of a prediction ({error}); --force replaces it") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not the record of a prediction; --force replaces it")
    return settings
