"""The files of a folder that somebody collected: images, lists, masks, and what is left out."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from data.images import HEIF_SUFFIXES, heif_is_readable
from data.sources.listing import Entry
from data.sources.table import IMAGE_SUFFIXES, Matcher, files_below, merged
from wsss.errors import UserError, listed, plural

WRITTEN = ("wsss.toml", "wsss_labels.csv")
"""What `init` writes: never read as somebody's list."""

_LISTS = (".csv", ".tsv", ".json", ".jsonl", ".xml")
_MASKS = re.compile(
    r"(^|[_\W])(masks?|gt|ground[_\W]?truth|labels?|label[_\W]?maps?|annot|annotations?|segs?|trimaps?)([_\W]|$)"
    r"|segmentation",
    re.IGNORECASE,
)
_MASK_ENDING = re.compile(r"[_\W](mask|masks|gt|seg|segmentation|labels?|label[_\W]?ids)$", re.IGNORECASE)
_COLOURS = 64  # a mask has no more
_SAMPLED = 5  # files of a folder that are looked at
_RESULTS = ("run.json", "predict.json")
_OURS = re.compile(r"files-[0-9a-f]{12}\.json")  # in a workspace of this program


@dataclass(frozen=True, kw_only=True)
class Found:
    """A way to read the folder.

    Attributes:
        what: what it was recognised as, e.g. ``images in folders named by class``.
        data: keys of the section [data], except root.
        entries: images with tags, their paths relative to the folder; empty where the layout has lists of its own.
        listed: the entries are in a list that is read as it is.
        notes: why it was taken for this, a sentence each.
        problems: what was left out or will matter, a sentence each.
    """

    what: str
    data: Mapping[str, str | list[str]] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    listed: bool = False
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user said of the folder; empty where it is to be found out.

    Attributes:
        list: the file that lists images and tags, relative to the folder.
        images: the folder of the images, relative to it.
        masks: the folder of the masks, relative to it.
        image_column: of the list.
        tag_columns: of the list.
    """

    list: str = ""
    images: str = ""
    masks: str = ""
    image_column: str = ""
    tag_columns: tuple[str, ...] = ()


NOTHING_SAID = Wanted()


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What lies in a folder, as sorted paths relative to it with ``/`` between folders.

    Attributes:
        root: the folder.
        images: paths of images.
        lists: CSV, JSON and XML files.
        masks: masks by the folder that holds them.
        left_out: other files, counted by reason, a phrase each.
        wanted: what the user said.
    """

    root: Path
    images: tuple[str, ...]
    lists: tuple[str, ...] = ()
    masks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    wanted: Wanted = NOTHING_SAID

    def lists_named(self, *suffixes: str) -> list[str]:
        """Return the lists with one of these suffixes, those nearest to the root first; only the wanted one, if any."""
        if self.wanted.list:
            return [self.wanted.list] if self.wanted.list.lower().endswith(suffixes) else []
        found = [name for name in self.lists if name.lower().endswith(suffixes)]
        return sorted(
            found, key=lambda name: (name.count("/"), name != "labels.csv", "train" not in name.lower(), name)
        )


def scan_tree(root: Path, wanted: Wanted = NOTHING_SAID) -> Tree:
    """List a folder; links are followed.

    Raises:
        UserError: it is no folder, or nothing in it is an image.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Expected the folder of your images.")
    notes: list[str] = []
    images, lists, others = [], [], defaultdict[str, list[str]](list)
    for path in _without_workspaces(sorted(files_below(root, notes))):
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  # called for every file
        if suffix in HEIF_SUFFIXES and not heif_is_readable():
            others[".heic, which needs a package (pip install pillow-heif)"].append(path)
        elif suffix in IMAGE_SUFFIXES:
            images.append(path)
        elif suffix in _LISTS and path not in WRITTEN:
            lists.append(path)
        elif suffix != ".txt" and path not in WRITTEN and path.lower() not in ("thumbs.db", "desktop.ini"):
            others[f"{suffix or 'without extension'}, which is not read"].append(path)
    masks, beside = _masks(root, images, wanted)
    if beside:
        others["masks beside images"] += beside
    taken = {name for names in masks.values() for name in names} | set(beside)
    images = [name for name in images if name not in taken]
    if wanted.images:
        images = [name for name in images if name.startswith(f"{wanted.images}/")]
    left_out = [f"{plural(len(names), 'file')} {what} ({names[0]})" for what, names in others.items()]
    if not images:
        raise UserError(
            f"{root / wanted.images}: no images in it{': ' if left_out else ''}{listed(left_out)}.\n"
            f"Expected files {', '.join(IMAGE_SUFFIXES)}."
        )
    return Tree(
        root=root,
        images=tuple(images),
        lists=tuple(lists),
        masks=masks,
        left_out=(*left_out, *notes),
        wanted=wanted,
    )


def _without_workspaces(paths: Sequence[str]) -> Iterable[str]:
    """The paths that are not results of this program."""
    ours = {str(PurePosixPath(path).parent) for path in paths if _OURS.fullmatch(PurePosixPath(path).name)}
    runs = {str(PurePosixPath(path).parent) for path in paths if PurePosixPath(path).name in _RESULTS}
    inside = tuple(f"{folder}/" for folder in (ours | runs) - {"."})
    inside += ("artifacts/", "scores/") if "." in ours else ()
    return [path for path in paths if not path.startswith(inside)]


def _masks(root: Path, images: Sequence[str], wanted: Wanted) -> tuple[dict[str, list[str]], list[str]]:
    """Masks by their topmost folder, and those beside their images, which have its name and an ending."""
    folders: dict[str, list[str]] = defaultdict(list)
    for name in images:
        folders[str(PurePosixPath(name).parent)].append(name)
    masks: dict[str, list[str]] = defaultdict(list)
    beside = []
    for folder, names in folders.items():
        parts = PurePosixPath(folder).parts
        place = next((i for i, part in enumerate(parts, start=1) if _MASKS.search(part)), 0)
        step = -(-len(names) // _SAMPLED)
        if wanted.masks and f"{folder}/".startswith(f"{wanted.masks}/"):
            masks[wanted.masks] += names
        elif (
            place
            and folder != wanted.images
            and all(_looks_like_a_mask(root / name) for name in names[::step])
        ):
            masks["/".join(parts[:place])] += names
        else:
            stems = {PurePosixPath(name).stem for name in names}
            beside += [
                name
                for name in names
                if _MASK_ENDING.sub("", stem := PurePosixPath(name).stem) in stems - {stem}
            ]
    return dict(masks), beside


def _looks_like_a_mask(path: Path) -> bool:
    """Whether an image has few colours, or (JPEG blurs them) hardly any but four of 32 shades."""
    try:
        with Image.open(path) as image:
            shades = sorted(np.histogram(np.asarray(image.convert("L")), 32, (0, 256))[0].tolist())
            return image.getcolors(_COLOURS) is not None or sum(shades[-4:]) > 0.98 * sum(shades)
    except Exception:  # Pillow raises almost anything on damaged files
        return False


def matched(tree: Tree, name: str, what: str, named: Iterable[Entry], notes: Sequence[str] = ()) -> Found:
    """The images that a list means; several entries of one image are put together.

    Args:
        tree: the folder.
        name: the list's path in it.
        what: says which list this is.
        named: what it says.
        notes: on how it was read.

    Raises:
        UserError: it names no image of the folder.
    """
    ends = {
        "/".join(parts[at:])
        for parts in (image.split("/") for image in tree.images)
        for at in range(len(parts))
    }
    named = sorted(
        named, key=lambda entry: entry.image not in ends
    )  # those that are certain take their images first
    matcher = Matcher(tree.images)
    found = [(entry, matcher.find(entry.image, entry.split)) for entry in named]
    entries, again = merged(
        Entry(image=path, tags=entry.tags, split=entry.split) for entry, path in found if path is not None
    )
    if not entries:
        first = f", the first is {named[0].image!r}" if named else ""
        two = f"\nNo image of their own: {listed(matcher.ambiguous[:3], ', ')}." if matcher.ambiguous else ""
        raise UserError(
            f"{tree.root / name}: none of its {len(named)} entries names an image in {tree.root}{first}.{two}\n"
            "Expected paths or names of files there: correct the names, or copy the images there."
        )
    problems = [*again, *matcher.problems(name)]
    unnamed = sorted(set(tree.images) - {entry.image for entry in entries})
    if unnamed:
        problems.append(
            f"{name}: no entry for {plural(len(unnamed), 'image')} ({listed(unnamed[:3], ', ')}); left out"
        )
    return Found(what=what, entries=tuple(entries), notes=tuple(notes), problems=tuple(problems))


def by_suffix(names: Iterable[str]) -> str:
    """How many files there are of each kind."""
    counts = Counter(os.path.splitext(name)[1].lower() for name in names)  # noqa: PTH122  # for every file
    return ", ".join(f"{number} {suffix}" for suffix, number in counts.most_common())
