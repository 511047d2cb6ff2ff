"""The CSV that tells `predict` which classes a photograph can show."""

import difflib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.sources.folder import parse_csv
from data.sources.rows import read_text
from stages.photographs import Photograph
from wsss.errors import UserError, listed


def read_tags(
    path: Path | None, photographs: Sequence[Photograph], classes: Sequence[str]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Class indices by the photograph's name, for those that the file names.

    Args:
        path: a CSV ``image,tags`` as a data set's labels.csv, or None: no photograph is restricted.
        photographs: to be predicted; matched by name, as written below their folder.
        classes: C names.

    Returns:
        Sorted indices 0..C-1 by name, and a note on photographs without a row: they are not restricted.

    Raises:
        UserError: not such a CSV, a tag that is no class, a photograph named twice, or none named at all.
    """
    if path is None:
        return {}, []
    index = {name: position for position, name in enumerate(classes)}
    rows: dict[str, tuple[int, ...]] = {}
    for row in parse_csv(read_text(path), path, ""):
        name = str(PurePosixPath(row.image))
        if name in rows:
            raise UserError(f"{path} {row.where}: {row.image} has a row already; remove one")
        rows[name] = tuple(sorted({_index(tag, index, f"{path} {row.where}") for tag in row.tags}))
    tags = {photograph.name: rows[photograph.name] for photograph in photographs if photograph.name in rows}
    missing = [photograph.name for photograph in photographs if photograph.name not in tags]
    if not tags:
        raise UserError(
            f"{path}: names none of the photographs; expected paths as {listed(missing[:2], ', ')}, "
            f"found {listed(list(rows)[:2], ', ')}"
        )
    if not missing:
        return tags, []
    note = f"{len(missing)} photographs without a row in {path} may show any class: {listed(missing, ', ')}"
    return tags, [note]


def _index(tag: str, index: dict[str, int], where: str) -> int:
    if tag in index:
        return index[tag]
    close = difflib.get_close_matches(tag, index, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of: {listed(list(index), ', ')}"
    raise UserError(f"{where}: {tag!r} is no class of this network; {hint}")
