"""The commands check and tags: what the data are, before anything is computed."""

import shlex
import textwrap
from dataclasses import replace
from pathlib import Path

from data.sources import derive_tags
from data.sources.folder import entries_as_csv
from data.survey import SplitSurvey, Survey, survey
from stages.commands.session import Request, Session, check_networks, open_session
from wsss.config import load_config
from wsss.errors import UserError, plural
from wsss.store.files import write_text

SERIOUS = ("not used", "masks not used", "suspicious", "masks are not the tags")
"""How problems begin after which results may mean nothing."""

_WIDTH = 100  # columns of the page
_ROWS = 40  # of the class table; more classes go into several columns
_BAR = 12


def run_check(request: Request, *, duplicates: bool) -> None:
    """Run every check of the input and print a page: what is there, class counts, problems."""
    found = look(request, duplicates=duplicates)
    print(f"\n{verdict(found)}:\n  run_pipeline.py run {arguments(request)}".rstrip())


def look(request: Request, *, duplicates: bool = False) -> Survey:
    """Run every check of the input, print the page and return what it is made of."""
    name = request.name or (request.config.stem if request.config else None)
    session = open_session(replace(request, name=name))
    full = session.config.segment.supervision == "full"
    found = survey(session.dataset, session.config.data, full=full, duplicates=duplicates, progress=True)
    print(page(session, found))
    check_networks(session)
    return found


def verdict(found: Survey) -> str:
    """Whether a run makes sense, in a line."""
    serious = [text.split(":")[0] for text in found.problems if text.startswith(SERIOUS)]
    if serious:
        return f"A run is possible; look at the problems first ({', '.join(serious)})"
    return "Everything that a run needs is there"


def run_tags(request: Request, *, output: Path | None, force: bool) -> None:
    """Derive tags from annotations or masks, write them as a CSV, and say what they were derived from."""
    config = load_config(request.config, request.overrides).data
    if not config.root:
        raise UserError("data.root is not set: give --config FILE.toml or --set data.root=DIR")
    usual = (
        "tags.csv" if config.source == "voc" else "labels.csv" if config.labels == "auto" else config.labels
    )
    path = output or Path(config.root) / usual
    if path.exists() and not force:
        raise UserError(f"{path}: exists already; --force overwrites it, --output FILE writes another")
    entries = derive_tags(config, progress=True)
    write_text(path, entries_as_csv(entries, splits=config.source == "folder"))
    for origin in sorted({entry.derived_from for entry in entries}):
        number = sum(entry.derived_from == origin for entry in entries)
        print(f"{plural(number, 'image')}: tags derived from {origin}")
    hint = f'data.tags = "{path}"' if config.source == "voc" else f'data.labels = "{path}"'
    print(f"{path} written; used where the configuration says {hint}")


def arguments(request: Request) -> str:
    """The arguments that give `run` the same configuration."""
    elsewhere = request.workspace if request.workspace != Path("runs") else None
    given = [("--config", request.config), ("--name", request.name), ("--workspace", elsewhere)]
    shown = [f"{key} {shlex.quote(str(value))}" for key, value in given if value]
    return " ".join([*shown, *(f"--set {shlex.quote(text)}" for text in request.overrides)])


def page(session: Session, found: Survey) -> str:
    """The summary as text."""
    data, (training, validation) = session.config.data, found.splits
    low, typical, high = (f"{a}x{b}" for a, b in zip(found.short_side, found.long_side, strict=True))
    lines = [
        f"data     {data.source}  {data.root}",
        f"images   {training.images} training ({training.name}), {validation.images} validation ({validation.name})",
        f"sizes    {typical} pixels typically (short x long side), from {low} to {high}",
        f"masks    {_masks(session, training, validation)}",
        "",
        *_class_table(found),
    ]
    untagged = training.untagged
    if untagged:
        lines.append(f"{plural(untagged, 'training image')} without tags, taken to show background only")
    if session.dataset.notes:
        lines += ["", *(wrapped(f"note: {note}") for note in session.dataset.notes)]
    lines += ["", *(wrapped(f"problem: {problem}") for problem in found.problems)]
    return "\n".join(lines if found.problems else [*lines, "no problems found"])


def wrapped(text: str) -> str:
    """The text in lines of the page's width."""
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _masks(session: Session, training: SplitSurvey, validation: SplitSurvey) -> str:
    if not training.masks + validation.masks:
        return "none: there is nothing to score against"
    full = session.config.segment.supervision == "full"
    use = "learned from (segment.supervision = 'full')" if full else "used for scores alone"
    counts = (f"{split.masks} of {split.images} {split.name}" for split in (training, validation))
    return f"{', '.join(counts)}; {use}"


def _class_table(found: Survey) -> list[str]:
    """One line per class, in as many columns as the page needs: name, images in both splits, a bar."""
    training, validation = found.splits
    width, most = max(map(len, found.classes)), max(training.per_class)
    cells = [
        f"{name:{width}} {train:6} {val:6}  {'█' * round(_BAR * train / most):{_BAR}}"
        for name, train, val in zip(found.classes, training.per_class, validation.per_class, strict=True)
    ]
    head = f"{'class':{width}} {'train':>6} {'val':>6}  {'':{_BAR}}"
    columns = min(max(1, _WIDTH // (len(head) + 2)), -(-len(cells) // _ROWS))
    height = -(-len(cells) // columns)
    rows = [[head] * columns, *(cells[row::height] for row in range(height))]
    return ["  ".join(row).rstrip() for row in rows]
