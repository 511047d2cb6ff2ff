"""Images on the command line: files, folders and patterns; and the CSV of the classes that each can show."""

import difflib
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from data.sources.listing import one_spelling
from data.sources.table import IMAGE_SUFFIXES, Matcher, files_below, read_list
from wsss.errors import UserError, listed, plural


@dataclass(frozen=True, order=True)
class InputImage:
    """One image to be predicted: its file, and its name as a relative path with its extension.

    The name is below the folder or the fixed part of the pattern that named the image, or the bare file name.
    """

    name: str
    source: Path

    @property
    def id(self) -> str:
        """The name without its extension: what results are called."""
        return str(PurePosixPath(self.name).with_suffix(""))


def find_images(items: Sequence[str], out: Path) -> tuple[list[InputImage], list[str]]:
    """List the images that files, folders (with all below them) and glob patterns name, but for those in ``out``.

    In folders an image's ending decides; a file that is named itself, or matched, may have another if it is an image.

    Returns:
        The images sorted by name, each once; and sentences on what was left out.

    Raises:
        UserError: an item names nothing, or two images would get the same result file.
    """
    found: dict[str, InputImage] = {}
    clashes, results, others, notes = [], 0, dict[str, list[str]](), list[str]()
    for item in items:
        for image, named in _expanded(item, notes):
            if out.resolve() in image.source.resolve().parents:
                results += 1
            elif ".." in PurePosixPath(image.name).parts:
                raise UserError(f"{item}: a pattern with .. after a wildcard; name the folder itself")
            elif not (image.name.lower().endswith(IMAGE_SUFFIXES) or (named and _is_image(image.source))):
                others.setdefault(image.source.suffix.lower() or "without an ending", []).append(image.name)
            elif found.setdefault(image.id, image).source.resolve() != image.source.resolve():
                clashes.append(f"{found[image.id].source} and {image.source}")
    if clashes:
        raise UserError(
            f"{len(clashes)} image(s) would get the result file of another: {listed(clashes)}.\n"
            "Give a pattern of one kind in quotes, such as 'photos/**/*.jpg', or the folder that holds them all, which "
            "keeps subfolders, or rename them."
        )
    if results:
        notes.append(f"{plural(results, 'file')} in {out} left out: it is the folder of the results")
    if others:
        kinds = [f"{len(names)} {suffix} ({names[0]})" for suffix, names in sorted(others.items())]
        notes.append(f"left out, no images: {listed(kinds, ', ')}")
    if not found:
        raise UserError(
            f"{listed(items, ', ')}: no images there ({'; '.join(notes) or 'the folder is empty'})"
        )
    return sorted(found.values()), notes


def _is_image(path: Path) -> bool:
    try:
        Image.open(path).close()
    except Exception:  # Pillow's readers raise almost anything
        return False
    return True


def _expanded(item: str, notes: list[str]) -> Iterator[tuple[InputImage, bool]]:
    """What an item names, and whether it names that file itself; ``notes`` are told of links that lead back."""
    path = Path(item).expanduser()
    if path.is_dir():
        yield from ((InputImage(name, path / name), False) for name in sorted(files_below(path, notes)))
    elif path.exists():
        yield InputImage(path.name.lstrip(".") or path.name, path), True  # meant, hidden or not
    else:
        # Path.glob takes no absolute pattern.
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(item) else []  # noqa: PTH207
        if not matches:
            raise UserError(f"{item}: no such file or folder, and no pattern that matches any")
        base = path.parent
        while glob.has_magic(str(base)):
            base = base.parent
        for match in map(Path, matches):
            inside = [match / name for name in files_below(match, notes)] if match.is_dir() else [match]
            for file in inside:
                yield InputImage(file.relative_to(base).as_posix(), file), file is match


def read_tags(
    path: Path | None, images: Sequence[InputImage], classes: Sequence[str]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The classes that each image can show, by the image's name, from a list ``image,tags`` as a data set's labels.csv.

    Returns:
        Sorted indices 0..C-1, and notes: what was cleaned, and images without a row, which can show any class.

    Raises:
        UserError: no such list, a tag that is no class, or no image named.
    """
    if path is None:
        return {}, []
    found = read_list(path)
    if found.wrong:
        raise UserError(f"{path}: {listed(found.wrong)}.\nCorrect or remove these rows.")
    rows, notes = one_spelling(found.entries, classes)
    for row in rows:
        for tag in row.tags:
            if tag not in classes:
                close = difflib.get_close_matches(tag, classes, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"expected one of: {listed(classes, ', ')}"
                raise UserError(f"{path} {row.where}: {tag!r} is no class of this network; {hint}")
    matcher = Matcher([image.name for image in images])
    tags: dict[str, set[int]] = {}
    for row in rows:
        name = matcher.find(row.image)
        if name is not None:
            tags.setdefault(name, set()).update(classes.index(tag) for tag in row.tags)
    missing = [image.name for image in images if image.name not in tags]
    if not tags:
        raise UserError(
            f"{path}: names none of the images; expected paths as {listed(missing[:2], ', ')}, "
            f"found {listed([row.image for row in rows[:2]], ', ')}"
        )
    notes = [f"{path}: {note}" for note in (*found.notes, *notes)]
    if missing:
        notes.append(
            f"{len(missing)} images without a row in {path} may show any class: {listed(missing, ', ')}"
        )
    return {name: tuple(sorted(shown)) for name, shown in tags.items()}, notes
