#!/usr/bin/env python3
"""The command line: one function per subcommand; what it does is in `stages.commands`.

Everything but Typer is imported where it is used, so that help and completion answer at once.
"""

import io
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from typer import Argument, Option

from wsss.errors import UserError
from wsss.runtime import distributed, interrupt

if TYPE_CHECKING:
    from stages.commands.session import Request

PROGRAM = "run_pipeline.py"
COOPERATING = ("run", "stage", "predict")
"""Commands that torchrun's processes carry out together; the others are the leader's."""
EXIT_ERROR = 1
EXIT_WORSE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
RUNS = Path("runs")

Workspace = Annotated[Path, Option(help="Where results are kept.")]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
File = Annotated[Path | None, Option("--config", help="TOML file (default: the named run's own).")]
Overrides = Annotated[list[str] | None, Option("--set", metavar="SECTION.KEY=VALUE", help="May be repeated.")]
RunOverrides = Annotated[list[str] | None, Option("--set", metavar="run.KEY=VALUE", help="May be repeated.")]
Name = Annotated[
    str | None, Option(metavar="RUN", help="Name of the run (default: that of the configuration).")
]
Finished = Annotated[str, Argument(metavar="RUN", help="Name of the run.")]
Tensorboard = Annotated[
    bool, Option("--tensorboard", help="Also write events (needs the package tensorboard).")
]
Replace = Annotated[bool, Option("--force", help="Replace files that are there.")]
Size = int | None
Place = Path | None

app = typer.Typer(
    rich_markup_mode=None,  # lines and colours cost a narrow or simple terminal more than they give
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"Example: {PROGRAM} run --config configs/sample.toml",
)


def command(name: str, example: str) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Register a subcommand, with an example below its help."""
    return app.command(name, epilog=f"Example: {PROGRAM} {name} {example}")


@app.callback()
def prepare(context: typer.Context) -> None:
    """From images and image-level tags to pixel masks and a trained segmentation network."""
    interrupt.install()
    if context.invoked_subcommand not in COOPERATING:
        if not distributed.leads():
            raise typer.Exit
        distributed.alone()
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":  # the same file would have another name, and so another result
        raise UserError(
            f"file names are taken for {encoding} in this locale, which lists of images are not; expected UTF-8: "
            "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
        )
    context.with_resource(distributed.together())


@command("run", "--config configs/sample.toml")
def run(
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    tensorboard: Tensorboard = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Compute every stage that is not cached."""
    from stages.commands.run import run_all

    run_all(requested(config, overrides, name, workspace), tensorboard=tensorboard)


@command("stage", "refine --name sample --set refine.preset=psa")
def stage(
    stage: Annotated[Literal["classify", "cams", "refine", "segment"], Argument(metavar="NAME")],
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    tensorboard: Tensorboard = False,
    force: Annotated[bool, Option("--force", help="Compute it even if it is cached.")] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Compute exactly one stage, its inputs from the cache."""
    from stages.commands.run import run_stage

    request = requested(config, overrides, name, workspace)
    run_stage(request, stage, force=force, tensorboard=tensorboard)


@command("status", "--config configs/sample.toml")
def status(
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    verify: Annotated[bool, Option("--verify", help="Hold every artifact against its checksum.")] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Say what is cached, what would run, and why."""
    from stages.commands.run import show_status

    show_status(requested(config, overrides, name, workspace), check=verify)


@command("config", "--set refine.preset=psa")
def config(
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Print every key with its value and meaning."""
    from stages.commands.run import show_config

    show_config(requested(config, overrides, name, workspace))


@command("init", "my_photos --val 0.2")
def init(
    folder: Annotated[Path, Argument(metavar="DIR")],
    val: Annotated[float | None, Option(help="Set this share aside for validation, e.g. 0.2.")] = None,
    look: Annotated[bool, Option("--look", help="Look and check only; write nothing.")] = False,
    list_: Annotated[str, Option("--list", help="The list of images and tags, relative to DIR.")] = "",
    images: Annotated[str, Option(help="The folder of the images, relative to DIR.")] = "",
    masks: Annotated[str, Option(help="The folder of the masks, relative to DIR.")] = "",
    image_column: Annotated[str, Option(help="The list's column of images.")] = "",
    tag_columns: Annotated[str, Option(help="Its column of tags, or columns of 0 and 1: cat,dog.")] = "",
    out: Annotated[Path | None, Option(help="Write there instead of into DIR.")] = None,
    force: Annotated[bool, Option("--force", help="Replace what an earlier init wrote.")] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Look at a folder of images and write a configuration for it.

    The settings suit the images and this machine; the result is checked first.
    """
    from data.own import Wanted
    from stages.commands.init import run_init

    wanted = Wanted(
        list=list_,
        images=images.strip("/"),
        masks=masks.strip("/"),
        image_column=image_column,
        tag_columns=tuple(name.strip() for name in tag_columns.split(",") if name.strip()),
    )
    run_init(folder, workspace, val=val, force=force, look_only=look, out=out, wanted=wanted)


@command("check", "configs/sample.toml")
def check(
    file: Annotated[Path | None, Argument(metavar="CONFIG", help="As --config.")] = None,
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    duplicates: Annotated[
        bool,
        Option("--duplicates", help="Look for near-duplicates across splits in more than 20,000 images."),
    ] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Run every check of the input and print a summary."""
    from stages.commands.check import run_check

    run_check(requested(file or config, overrides, name, workspace), duplicates=duplicates)


@command("tags", "--config configs/voc_24gb.toml --set data.root=VOCdevkit/VOC2012")
def tags(
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    output: Annotated[Place, Option(help="The CSV (default: in the data set's folder).")] = None,
    force: Replace = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Derive tags from annotations or masks, once, into a CSV."""
    from stages.commands.check import run_tags

    run_tags(requested(config, overrides, name, workspace), output=output, force=force)


@command("report", "sample")
def report(
    name: Finished, tensorboard: Tensorboard = False, workspace: Workspace = RUNS, _debug: Debug = False
) -> None:
    """Measure a run's results; write report.json and report.html."""
    from stages.commands.run import run_report

    run_report(requested(None, None, name, workspace), tensorboard=tensorboard)


@command("compare", "sample sample_psa --fail-if-worse 1")
def compare(
    runs: Annotated[list[str], Argument(metavar="RUN", help="Names of runs, or paths of report.json files.")],
    out: Annotated[Place, Option(help="The page (default: compare.html in the last run's folder).")] = None,
    json: Annotated[bool, Option("--json", help="Print JSON instead of tables.")] = False,
    fail_if_worse: Annotated[
        float | None, Option(min=0, help="Exit with 1 if a run lost more points of mIoU in any stage.")
    ] = None,
    resamples: Annotated[int, Option(min=100, max=1_000_000, help="Of the bootstrap.")] = 2000,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> int:
    """Compare the first run's report with the others'."""
    from stages.commands.compare import run_compare

    fine = run_compare(
        runs, workspace, out=out, print_json=json, fail_if_worse=fail_if_worse, resamples=resamples
    )
    return 0 if fine else EXIT_WORSE


@command("ablate", "--config configs/sample.toml --seeds 0,1,2 --variants baseline,mea+sr")
def ablate(
    config: File = None,
    overrides: Overrides = None,
    name: Name = None,
    seeds: Annotated[str, Option(metavar="A,B", help="Default: ablate.seeds.")] = "",
    variants: Annotated[
        str,
        Option(
            metavar="A,B",
            help="The first is what the others are set against: baseline, mea, mea+srf, mea+srl, mea+sr, released, "
            "and those of section ablate.own (default: ablate.variants).",
        ),
    ] = "",
    no_cost: Annotated[bool, Option("--no-cost", help="Do not measure what the variants cost.")] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Run variants with several seeds: what does each part bring?"""
    from stages.commands.ablate.command import run_ablate

    run_ablate(
        requested(config, overrides, name, workspace),
        seeds=separated("--seeds", seeds, int, "whole numbers, e.g. 0,1,2"),
        variants=separated("--variants", variants, str, "names, e.g. baseline,mea+sr"),
        cost=not no_cost,
    )


@command("predict", "sample my_photos 'more/*.jpg' --out masks --overlay")
def predict(
    inputs: Annotated[
        list[str],
        Argument(metavar="RUN IMAGE", help="A run (not with --onnx), then images: files, folders, patterns."),
    ],
    out: Annotated[Path, Option(help="Folder of the results.")],
    onnx: Annotated[Place, Option(help="Use an exported model instead of a run.")] = None,
    tags: Annotated[Place, Option(help="CSV image,tags: choose from these classes alone.")] = None,
    scales: Annotated[str, Option(metavar="A,B", help="Scales to average (default: the run's).")] = "",
    flip: Annotated[bool | None, Option(help="Average with the mirror image (default: the run's).")] = None,
    crf: Annotated[bool, Option("--crf", help="Dense CRF on top (preset deeplab).")] = False,
    overlay: Annotated[bool, Option("--overlay", help="Also <name>.overlay.jpg, with a legend.")] = False,
    max_side: Annotated[
        Size, Option(min=0, help="Reduce larger images; 0: never (default: the run's).")
    ] = None,
    tile: Annotated[
        Size, Option(min=0, help="Side of tiles for larger images; 0: none (default: 1536).")
    ] = None,
    max_pixels: Annotated[Size, Option(min=0, help="Largest image (default: about 179 million).")] = None,
    force: Replace = False,
    overrides: RunOverrides = None,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Predict masks for any images, as <name>.png below --out.

    They have the VOC colours as palette. What is there already, made with the same settings, is left as it is.
    """
    from stages.commands.predict.command import PredictRequest, run_predict

    run_predict(
        PredictRequest(
            inputs=inputs,
            workspace=workspace,
            out=out,
            onnx=onnx,
            overrides=overrides or (),
            tags=tags,
            scales=tuple(separated("--scales", scales, scale, "numbers between 0.05 and 8, e.g. 0.5,1"))
            or None,
            flip=flip,
            max_side=max_side,
            tile=tile,
            crf=crf,
            overlay=overlay,
            max_pixels=max_pixels,
            force=force,
        )
    )


@command("export", "sample --format coco --from masks")
def export(
    name: Finished,
    format: Annotated[
        Literal["voc", "coco", "cvat", "labelstudio", "yolo", "onnx"],
        Option(
            help="voc: palette PNGs and a list; coco: instances JSON with RLE; cvat: archive 'Segmentation mask 1.1'; "
            "labelstudio: tasks with brush predictions; yolo: polygons; onnx: the network."
        ),
    ],
    source: Annotated[
        Literal["masks", "predictions"] | None,
        Option("--from", help="Pseudo-masks of the training images, or the network's predictions."),
    ] = None,
    split: Annotated[str | None, Option(help="Default: train for masks, val for predictions.")] = None,
    out: Annotated[Place, Option(help="Default: export/... in the run's folder.")] = None,
    unsure: Annotated[
        Literal["keep", "decide"],
        Option(help="Uncertain pixels: 255 (or no annotation), or the most probable label."),
    ] = "keep",
    instances: Annotated[
        bool, Option("--instances", help="coco, cvat, labelstudio: an annotation per connected component.")
    ] = False,
    image_prefix: Annotated[
        str, Option(help="labelstudio: what stands before an image's name.")
    ] = "/data/local-files/?d=",
    force: Replace = False,
    overrides: RunOverrides = None,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Write masks for other programs, or the network as ONNX."""
    from stages.commands.export.command import ExportRequest, run_export

    run_export(
        ExportRequest(
            name=name,
            workspace=workspace,
            format=format,
            source=source,
            split=split,
            out=out,
            overrides=overrides or (),
            unsure=unsure,
            instances=instances,
            prefix=image_prefix,
            force=force,
        )
    )


@command("import", "sample annotated.zip")
def import_(
    name: Finished,
    file: Annotated[
        Path, Argument(metavar="FILE", help="CVAT's zip, Label Studio's or COCO's JSON, or a folder of PNGs.")
    ],
    out: Annotated[Place, Option(help="Folder of the corrections (default: the run's).")] = None,
    unsure: Annotated[
        Literal["keep", "decide"], Option(help="As in the export that was corrected.")
    ] = "keep",
    whole: Annotated[
        bool, Option("--whole", help="Take changed images whole, not what changed alone.")
    ] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Make corrections of what an annotation tool gives back.

    Only what differs from the exported masks counts; training learns from it with data.corrections.
    """
    from stages.commands.export.returned import ImportRequest, run_import

    run_import(ImportRequest(name=name, workspace=workspace, file=file, out=out, unsure=unsure, whole=whole))


@command("prune", "--dry-run")
def prune(
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would go.")] = False,
    workspace: Workspace = RUNS,
    _debug: Debug = False,
) -> None:
    """Remove cached results that no run names."""
    from stages.commands.run import run_prune

    run_prune(workspace, dry_run=dry_run)


def requested(config: Place, overrides: list[str] | None, name: str | None, workspace: Path) -> "Request":
    """What the commands with a configuration are told."""
    from stages.commands.session import Request

    return Request(config, overrides or (), name, workspace)


Value = TypeVar("Value")


def separated(option: str, text: str, kind: Callable[[str], Value], expected: str) -> list[Value]:
    """The values of ``A,B``; none of an option that was not given."""
    parts = [part.strip() for part in text.split(",")] if text else []
    try:
        if "" in parts:
            raise ValueError
        return [kind(part) for part in parts]
    except ValueError:
        raise UserError(f"{option} {text!r}: expected {expected}") from None


def scale(text: str) -> float:
    """A factor on an image's size. Raises ValueError."""
    if not 0.05 <= float(text) <= 8:
        raise ValueError
    return float(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Returns:
        The exit status: 0, 1 (an error, or worse than allowed), 2 (something to fix) or 130 (interrupted).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if sys.platform == "win32":
        print("error: Windows itself is not supported; WSL, its Linux, is: `wsl --install`", file=sys.stderr)
        return EXIT_USER_ERROR
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what a terminal cannot show
    try:
        status = int(app(args=given, prog_name=PROGRAM, standalone_mode=False) or 0)
    except interrupt.Interrupted:
        status = EXIT_INTERRUPTED
    except typer.TyperException as error:  # no such option, a value that is none, ...
        context = getattr(error, "ctx", None)
        words = " ".join(error.format_message().replace("Value error, ", "").rstrip(".").split())
        print(f"error: {words}; see {context.command_path if context else PROGRAM} --help", file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception as raised:
        if "--debug" in given:
            traceback.print_exc()
        from stages.commands.terminal import ELSEWHERE, explained, printable

        end_of_file = isinstance(raised, typer.Abort)  # what Typer makes of an EOFError
        cause = raised.__cause__ or raised if end_of_file else raised
        name = next((word for word in given if word in ELSEWHERE), "")
        print(f"error: {printable(explained(cause, name))}", file=sys.stderr)
        return EXIT_USER_ERROR if isinstance(cause, UserError | ModuleNotFoundError) else EXIT_ERROR
    if status == EXIT_INTERRUPTED:
        print("\ninterrupted; rerun the same command to resume", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
