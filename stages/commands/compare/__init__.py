"""`compare`: two or more reports side by side: on the terminal, as JSON and as one HTML page."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from data import Sample
from stages.commands.compare.pairing import StagePair, config_differences, pair_stage
from stages.commands.report import SCHEMA, report_paths
from stages.commands.report.gallery import MASKS, Exhibit, Picture, stage_mask
from stages.commands.report.measure import scored_images
from stages.commands.report.page import percent, render, signed
from stages.commands.report.values import RESULTS, STAGE_TITLES, Values
from stages.commands.session import Request, Session, open_session
from stages.commands.terminal import aligned
from stages.workspace import Workspace
from wsss.errors import UserError, plural
from wsss.metrics.confusion import Labels
from wsss.store.artifacts import Artifact
from wsss.store.files import OutputFolder, is_sealed, parse_json, write_text

SHOWN = 3
"""Images shown of those that gained and of those that lost most."""
ON_TERMINAL = ("miou", "boundary_iou", "failure1.recall_tiny", "failure1.recall_thin", "failure2.mistaken")


@dataclass(frozen=True)
class Side:
    """A run that is compared: the path of its report.json, what it is called on the page, and the report itself."""

    path: Path
    name: str
    report: Values

    @cached_property
    def session(self) -> Session:
        """The run in whose folder the report lies. Raises UserError where it is no run's folder."""
        folder = self.path.parent
        if not (folder / "run.json").exists():
            raise UserError(f"{folder} is no run's folder, so its masks are not at hand")
        return open_session(Request(None, [], folder.name, folder.parent), writable=False)

    def mask(self, stage: str, sample: Sample) -> Labels:
        """(H, W) the mask that the report describes. Raises UserError where it is not at hand."""
        item, fingerprint = self.session.planned.get(stage), self.report[f"{stage}.fingerprint"]
        if item is None or not item.cached or item.stamp.fingerprint != fingerprint:
            raise UserError(f"the masks of {self.name} that its report describes are not in its workspace")
        with closing(Artifact(item.path)) as artifact:
            return stage_mask(stage, artifact, sample, self.report.get(f"{stage}.threshold", 0.0))


@dataclass(frozen=True)
class Pair:
    """The first run, named ``a``, against ``b``: stages that both have, and notes of what is not comparable at all."""

    a: str
    b: str
    stages: tuple[StagePair, ...]
    notes: tuple[str, ...]

    @property
    def answer(self) -> str:
        """In which results the other run is better, in which worse, by how much and on how many images."""
        found: dict[str, list[str]] = {}
        for stage in self.stages:
            figures = ""
            if stage.scores and not stage.shared:
                points, images = signed(stage.scores[0].difference), plural(len(stage.images), "image")
                figures = f" ({points} points of mIoU, {images})"
            found.setdefault(stage.told, []).append(RESULTS[stage.stage] + figures)
        words = {
            "better": f"{self.b} is better than {self.a} in",
            "worse": f"{self.b} is worse than {self.a} in",
            "cannot be told": "Which is better cannot be told in",
            "the same result": "They share",
        }
        parts = [f"{start} {' and '.join(found[told])}." for told, start in words.items() if told in found]
        return " ".join(parts) or "They have no result in common that could be compared."


def run_compare(
    runs: Sequence[str],
    workspace: Path,
    *,
    out: Path | None = None,
    print_json: bool = False,
    fail_if_worse: float | None = None,
    resamples: int,
) -> bool:
    """Compare the first run with the others: print, write the page, and judge.

    Args:
        runs: names of runs in the workspace, or paths of report.json files.
        workspace: folder of the runs.
        out: the page, ``.html`` where it has no ending; None: ``compare.html`` in the folder of the last run.
        print_json: print JSON instead of the tables.
        fail_if_worse: points of mIoU that a run may lose against the first.
        resamples: of the bootstrap.

    Returns:
        False where a run is worse than allowed.

    Raises:
        UserError: fewer than two runs, or a report is missing or damaged.
    """
    if len(runs) < 2:
        raise UserError(f"compare: expected two runs or more, got {len(runs)}")
    sides = load_sides([_report_path(run, Workspace(workspace.expanduser().resolve())) for run in runs])
    pairs = [pair_sides(sides[0], other, resamples=resamples) for other in sides[1:]]
    differences = config_differences([side.report for side in sides])
    folder = sides[-1].path.parent
    # The folder of a run must not be a link that leads out of the workspace.
    page = out or OutputFolder(folder.parent).place(f"{folder.name}/compare.html")
    page = page if page.suffix else page.with_name(f"{page.name}.html")
    if print_json:
        config = [{"key": key, "values": values} for key, values in differences]
        values = {
            "schema": SCHEMA,
            "config": config,
            "pairs": [asdict(pair) | {"answer": pair.answer} for pair in pairs],
        }
        print(json.dumps(values, ensure_ascii=False, allow_nan=False))
    else:
        print("\n\n".join(f"{pair.answer}\n\n{_table(pair)}" for pair in pairs), end="\n\n")
        for key, each in differences:
            print(f"{key}: {' | '.join(f'{s.name} {value}' for s, value in zip(sides, each, strict=True))}")
        print("\n".join(line for pair in pairs for line in _text(pair)))
        print("\n* the 95 % interval (paired bootstrap over images) excludes zero")
    shown = {
        (pair.b, stage.stage): _exhibits(stage, sides[0], other)
        for other, pair in zip(sides[1:], pairs, strict=True)
        for stage in pair.stages
        if not stage.shared
    }
    context = {"sides": sides, "pairs": pairs, "differences": differences, "shown": shown}
    write_text(page, render("compare.html", titles=STAGE_TITLES, results=RESULTS, **context))
    if not print_json:
        print(f"page: {page}")
    worse = [] if fail_if_worse is None else worse_by(pairs, fail_if_worse)
    for sentence in worse:
        # Not on standard output: --json has that to itself.
        print(f"worse by more than {fail_if_worse:g} points: {sentence}", file=sys.stderr)
    return not worse


def load_sides(paths: Sequence[Path]) -> list[Side]:
    """The reports, under the names of their runs, numbered where they are the same. Raises UserError."""
    reports = [load_report(path) for path in paths]
    runs = [str(report["run"]) for report in reports]
    earlier = [runs[:index].count(run) for index, run in enumerate(runs)]
    names = [f"{run} ({count + 1})" if count else run for run, count in zip(runs, earlier, strict=True)]
    return [Side(*side) for side in zip(paths, names, reports, strict=True)]


def load_report(path: Path) -> Values:
    """A report.json.

    Raises:
        UserError: not there, not a report, or of another schema.
    """
    again = "; `report RUN` writes it again"
    try:
        sealed = is_sealed(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `report RUN` writes it") from None
    if not sealed:
        raise UserError(f"{path}: not a run's report.json, or changed since it was written (sha256){again}")
    values: Values = parse_json(path.read_bytes())
    if values.get("schema") != SCHEMA:
        raise UserError(f"{path}: schema {values.get('schema')}, expected {SCHEMA}{again}")
    return values


def pair_sides(first: Side, other: Side, *, resamples: int) -> Pair:
    """Compare two runs in all stages that both have."""
    a, b = first.report, other.report
    stages, notes = [], []
    for stage, title in STAGE_TITLES.items():
        has = [side.name for side in (first, other) if f"{stage}.split" in side.report]
        if len(has) == 2:
            stages.append(pair_stage(stage, a, b, resamples=resamples))
        elif has:
            notes.append(f"{title}: only {has[0]} has it.")
    data = [(a.get(f"{stage}.data"), b.get(f"{stage}.data")) for stage in ("classify", "segment")]
    if any(one and another and one != another for one, another in data):
        notes.append(
            "The two were trained on different data (images, tags, splits, corrections or other masks)."
        )
    return Pair(first.name, other.name, tuple(stages), tuple(notes))


def worse_by(pairs: Sequence[Pair], points: float) -> list[str]:
    """Sentences for every stage whose mIoU fell by more than ``points`` (in points of mIoU).

    Raises:
        UserError: nothing was comparable, so that there is nothing to judge by.
    """
    scored = [(pair, stage, stage.scores[0]) for pair in pairs for stage in pair.stages if stage.scores]
    if not scored:
        raise UserError(
            "--fail-if-worse: the runs have no comparable scores (no common images with the same masks)"
        )
    return [
        f"{pair.b}: {STAGE_TITLES[stage.stage]}: mIoU {signed(line.difference)} against {pair.a}"
        for pair, stage, line in scored
        if line.difference is not None and 100 * line.difference < -points
    ]


def _table(pair: Pair) -> str:
    """A line per result, of its mIoU."""
    rows: list[Sequence[str]] = [("mIoU of", "images", pair.a, pair.b, "difference", "95 % interval", "")]
    for stage in pair.stages:
        cells = ["", "", "", ""]
        if stage.scores and not stage.shared:
            line = stage.scores[0]
            interval = f"[{signed(line.low)}, {signed(line.high)}]" if line.low is not None else ""
            cells = [percent(line.a), percent(line.b), signed(line.difference), interval]
        rows.append((RESULTS[stage.stage], str(len(stage.images)), *cells, stage.told))
    return aligned(rows)


def _text(pair: Pair) -> list[str]:
    """A pair for the terminal, line by line."""
    lines = ["", f"{pair.b} against {pair.a}", *(f"  note: {note}" for note in pair.notes)]
    for stage in pair.stages:
        if stage.shared:
            continue
        lines.append(f"  {STAGE_TITLES[stage.stage]}, {len(stage.images)} images")
        lines += [f"    note: {note}" for note in stage.notes]
        wanted = [line for line in (*stage.scores, *stage.failures) if line.key in ON_TERMINAL]
        if wanted:
            lines.append(
                f"    {'':24} {pair.a[:12]:>12} {pair.b[:12]:>12} {'difference':>11}   95 % interval"
            )
        for line in wanted:
            interval = f"[{signed(line.low)}, {signed(line.high)}]" if line.low is not None else ""
            figures = f"{percent(line.a):>12} {percent(line.b):>12} {signed(line.difference):>11}"
            lines.append(f"    {line.title:24} {figures}   {interval}{' *' if line.certain else ''}")
    return lines


def _exhibits(stage: StagePair, a: Side, b: Side) -> tuple[list[Exhibit], str]:
    """The images that gained and lost most, and why there are no pictures if there are none."""
    lost = [("lost", row) for row in stage.changes[:SHOWN] if row[2] < row[1]]
    gained = [("gained", row) for row in reversed(stage.changes[-SHOWN:]) if row[2] > row[1]]
    found = []
    try:
        for group, (image_id, before, after) in gained + lost:
            dataset = scored_images(a.session, stage.stage)
            sample = next((sample for sample in dataset.samples if sample.id == image_id), None)
            if sample is None:
                raise UserError(f"the image {image_id} is no longer in the data set")
            picture = Picture(sample, dataset.classes)
            named = [(side.name, side.mask(stage.stage, sample)) for side in (a, b)]
            panels = [picture.image()]
            panels += [picture.mask(f"{MASKS[stage.stage]}, {name}", mask) for name, mask in named]
            if picture.truth is not None:
                panels.append(picture.mask("ground truth", picture.truth))
                panels += [picture.errors(f"errors, {name}", mask) for name, mask in named]
            caption = f"mIoU {percent(before)} to {percent(after)}"
            found.append(Exhibit(group, image_id, caption, picture.labels, tuple(panels)))
    except UserError as error:
        return [], str(error)
    return found, ""


def _report_path(run: str, root: Workspace) -> Path:
    if run.endswith(".json") or "/" in run:
        return Path(run).expanduser().resolve()
    path = report_paths(root.run(run))[1]
    if not path.exists():
        known = ", ".join(item.folder.name for item in root.runs()) or "none"
        raise UserError(f"run {run}: no report at {path}; `report {run}` writes it. Runs there: {known}")
    return path
