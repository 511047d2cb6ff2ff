"""From photographs and image-level tags to pixel masks and a trained segmentation network.

The command line; what it does is in `stages.commands.session`.
"""

import argparse
import io
import sys
import traceback
from pathlib import Path

from stages import STAGE_NAMES
from stages.commands.check import run_check, run_tags
from stages.commands.init import run_init
from stages.commands.products import add_ablate, add_export, add_predict, run_ablate_command, run_product
from stages.commands.session import (
    Request,
    run_all,
    run_prune,
    run_report,
    run_stage,
    show_config,
    show_status,
)
from stages.commands.terminal import explained, printable
from wsss.errors import UserError
from wsss.memory import keep_freed_memory
from wsss.runtime import distributed, interrupt
from wsss.threads import wait_briefly

COOPERATING = ("run", "stage", "predict")
"""Commands that torchrun's processes carry out together; the others are the leader's."""
EXIT_USER_ERROR = 2
EXIT_WORSE = 1
EXIT_FAULT = 1
EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0, 1 (a fault of the program), 2 (something to mend) or 130 (interrupted)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may hold what a terminal cannot show
    options = _options(arguments)
    interrupt.install()
    keep_freed_memory()
    wait_briefly()
    if options.command not in COOPERATING:
        if not distributed.leads():
            return 0
        distributed.alone()
    try:
        _require_utf8()
        with distributed.together():
            return _dispatch(options)
    except (interrupt.Interrupted, KeyboardInterrupt):
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        return _explain(error)


def _require_utf8() -> None:
    """Refuse a locale in which the same file would have another name, and so another result."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise UserError(
            f"file names are taken for {encoding} in this locale, which lists of images are not; expected UTF-8: "
            "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
        )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """The parsed arguments. Names and photographs may stand before and after options, which argparse alone refuses."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    names = {"predict": "inputs", "compare": "runs"}.get(options.command)
    if rest and (names is None or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and names:
        setattr(options, names, [*getattr(options, names), *rest])
    return options


def _explain(error: Exception) -> int:
    """Say in few lines what went wrong and what to do; returns the exit status."""
    print(f"error: {printable(explained(error))}", file=sys.stderr)
    return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAULT


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "prune":
        run_prune(options.workspace, dry_run=options.dry_run)
        return 0
    if options.command == "report":
        run_report(Request(None, [], options.run, options.workspace), tensorboard=options.tensorboard)
        return 0
    if options.command == "compare":
        return _compare(options)
    if options.command == "init":
        run_init(options.folder, options.workspace, val=options.val, force=options.force)
        return 0
    if run_product(options):
        return 0
    request = Request(options.config, options.set, options.name, options.workspace)
    if options.command == "ablate":
        run_ablate_command(options, request)
    elif options.command == "run":
        run_all(request, tensorboard=options.tensorboard)
    elif options.command == "stage":
        run_stage(request, options.stage, force=options.force, tensorboard=options.tensorboard)
    elif options.command == "status":
        show_status(request, check=options.verify)
    elif options.command == "check":
        request = Request(options.file or options.config, options.set, options.name, options.workspace)
        run_check(request, duplicates=options.duplicates)
    elif options.command == "tags":
        run_tags(request, output=options.output, force=options.force)
    else:
        show_config(request)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from stages.commands.compare import run_compare

    fine = run_compare(
        options.runs,
        options.workspace,
        out=options.out,
        print_json=options.json,
        fail_if_worse=options.fail_if_worse,
        resamples=options.resamples,
    )
    return 0 if fine else EXIT_WORSE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_pipeline.py",
        description="From photographs and image-level tags to pixel masks and a trained segmentation network.",
        epilog="example: run_pipeline.py run --config configs/sample.toml",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _command(
        commands, "run", "compute every stage that is not cached", "run --config configs/sample.toml"
    )
    _tensorboard(run)
    starting = commands.add_parser(
        "init",
        help="look at a folder of photographs and write a configuration for it",
        description="Look at a folder of photographs, write a configuration that suits it and this machine, check it.",
        epilog="example: run_pipeline.py init my_photos --val 0.2",
    )
    starting.add_argument("folder", type=Path, metavar="DIR", help="the folder")
    starting.add_argument(
        "--val",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="set this share aside for validation, e.g. 0.2",
    )
    starting.add_argument("--force", action="store_true", help="overwrite what an earlier init wrote")
    _common(starting)
    stage = _command(
        commands,
        "stage",
        "compute exactly one stage, its inputs from the cache",
        "stage refine --name sample --set refine.preset=psa",
    )
    stage.add_argument("stage", choices=STAGE_NAMES, metavar="NAME", help=", ".join(STAGE_NAMES))
    _tensorboard(stage)
    stage.add_argument("--force", action="store_true", help="compute it even if it is cached")
    status = _command(
        commands, "status", "what is cached, what would run, and why", "status --config configs/sample.toml"
    )
    status.add_argument("--verify", action="store_true", help="hold every artifact against its checksum")
    _command(
        commands, "config", "print every key with its value and meaning", "config --set refine.preset=psa"
    )
    reporting = commands.add_parser(
        "report",
        help="measure a run's results and write report.json and report.html",
        description="Measure a run's results and write report.json and report.html into its folder.",
        epilog="example: run_pipeline.py report sample",
    )
    reporting.add_argument("run", metavar="RUN", help="name of the run")
    _tensorboard(reporting)
    _common(reporting)
    _comparing(commands)
    add_ablate(commands, _command)
    check = _command(
        commands,
        "check",
        "run every check of the input and print a summary",
        "check configs/sample.toml",
    )
    check.add_argument("file", type=Path, nargs="?", metavar="CONFIG", help="as --config")
    check.add_argument(
        "--duplicates",
        action="store_true",
        help="look for near-duplicates across splits in however many photographs (otherwise up to 20,000)",
    )
    tags = _command(
        commands,
        "tags",
        "derive tags from annotations or masks, once, into a CSV",
        "tags --config configs/voc_24gb.toml --set data.root=VOCdevkit/VOC2012",
    )
    tags.add_argument(
        "--output", type=Path, metavar="FILE", help="the CSV (default: in the data set's folder)"
    )
    tags.add_argument("--force", action="store_true", help="overwrite the CSV")
    pruning = commands.add_parser(
        "prune",
        help="remove cached results that no run names",
        description="Remove cached results that no run names.",
        epilog="example: run_pipeline.py prune --dry-run",
    )
    _common(pruning)
    pruning.add_argument("--dry-run", action="store_true", help="only say what would go")
    add_export(commands, _common)
    add_predict(commands, _common)
    return parser


def _comparing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        help="compare the reports of two runs or more",
        description="Compare the first run's report with the others': what differs, and how sure that is.",
        epilog="example: run_pipeline.py compare sample sample_psa --fail-if-worse 1",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a run, or path of a report.json")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: compare.html in the last run's folder)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--fail-if-worse",
        type=_not_negative,
        metavar="POINTS",
        help="exit with 1 if a run has lost more than this many points of mIoU in any stage",
    )
    parser.add_argument(
        "--resamples", type=_resamples, default=2000, metavar="N", help="of the bootstrap (default: 2000)"
    )
    _common(parser)


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected points of mIoU, 0 or more")
    return value


def _resamples(text: str) -> int:
    value = int(text)
    if not 100 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text}: expected 100 to 1000000 resamples")
    return value


def _tensorboard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write scalars and pictures for TensorBoard (needs the package tensorboard)",
    )


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: run_pipeline.py {example}",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file (default: the named run's own)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="section.key=value; may be repeated"
    )
    parser.add_argument("--name", metavar="RUN", help="name of the run (default: that of the configuration)")
    _common(parser)
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0 and at most 0.5, such as 0.2")
    return value


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workspace",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where results are kept (default: runs)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


if __name__ == "__main__":
    sys.exit(main())
