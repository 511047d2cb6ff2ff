"""The command line of what a finished run is good for: export and predict."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.commands.session import Request

FORMATS = {
    "voc": "palette PNGs and a list",
    "coco": "instances JSON with RLE",
    "cvat": "archive 'Segmentation mask 1.1'",
    "labelstudio": "tasks with brush predictions",
    "onnx": "the network",
}


def add_predict(commands: Any, common: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the parser of `predict`."""
    parser = commands.add_parser(
        "predict",
        help="masks for any photographs, with a finished run or an exported model",
        description="Masks for any photographs: <name>.png below --out, with the VOC colours as palette. "
        "What is there already, made with the same settings, is left as it is.",
        epilog="example: run_pipeline.py predict sample my_photos 'more/*.jpg' --out masks --overlay",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="RUN PHOTO",
        help="name of a run (not with --onnx), then files, folders, patterns",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="use an exported model instead of a run")
    parser.add_argument(
        "--tags", type=Path, metavar="FILE", help="CSV image,tags: choose from these classes alone"
    )
    parser.add_argument(
        "--scales", type=_scales, metavar="A,B", help="scales to average (default: the run's)"
    )
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="average with the mirror image (default: the run's)",
    )
    parser.add_argument("--crf", action="store_true", help="dense CRF on top (preset deeplab)")
    parser.add_argument("--overlay", action="store_true", help="also <name>.overlay.jpg, with a legend")
    parser.add_argument(
        "--max-side",
        type=_whole,
        metavar="N",
        help="reduce larger photographs to N pixels first; 0: never (default: the run's segment.max_side)",
    )
    parser.add_argument(
        "--tile",
        type=_whole,
        metavar="N",
        help="compute what is larger in tiles of N pixels; 0: never (default: 1536)",
    )
    parser.add_argument(
        "--max-pixels",
        type=_whole,
        metavar="N",
        help="accept photographs of up to N pixels (default: about 179 million)",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    _set_option(parser)
    common(parser)


def add_export(commands: Any, common: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the parser of `export`."""
    parser = commands.add_parser(
        "export",
        help="a run's masks for other programs, or its network as ONNX",
        description="A run's masks for other programs, or its network as ONNX.",
        epilog="example: run_pipeline.py export sample --format coco --from masks",
    )
    parser.add_argument("run", metavar="RUN", help="name of a run")
    parser.add_argument(
        "--format", required=True, choices=FORMATS, help="; ".join(f"{k}: {v}" for k, v in FORMATS.items())
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=("masks", "predictions"),
        help="pseudo-masks of the training images, or the network's predictions",
    )
    parser.add_argument("--split", metavar="NAME", help="default: train for masks, val for predictions")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: export/... in the run's folder")
    parser.add_argument(
        "--unsure",
        choices=("keep", "decide"),
        default="keep",
        help="pixels that the masks leave open: keep (255, or no annotation), or the most probable label",
    )
    parser.add_argument(
        "--instances",
        action="store_true",
        help="coco, cvat, labelstudio: an annotation per connected component (default: per class and image)",
    )
    parser.add_argument(
        "--image-prefix",
        default="/data/local-files/?d=",
        metavar="TEXT",
        help="labelstudio: what stands before an image's name (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    _set_option(parser)
    common(parser)


def run_product(options: argparse.Namespace) -> bool:
    """Run `predict` or `export`. Returns whether it was one of them."""
    if options.command == "export":
        _export(options)
    elif options.command == "predict":
        _predict(options)
    else:
        return False
    return True


def _export(options: argparse.Namespace) -> None:
    from stages.commands.export.command import ExportRequest, run_export

    run_export(
        ExportRequest(
            name=options.run,
            workspace=options.workspace,
            format=options.format,
            source=options.source,
            split=options.split,
            out=options.out,
            overrides=options.set,
            unsure=options.unsure,
            instances=options.instances,
            prefix=options.image_prefix,
            force=options.force,
        )
    )


def _predict(options: argparse.Namespace) -> None:
    from stages.commands.predict.command import PredictRequest, run_predict

    run_predict(
        PredictRequest(
            inputs=options.inputs,
            workspace=options.workspace,
            out=options.out,
            onnx=options.onnx,
            overrides=options.set,
            tags=options.tags,
            scales=options.scales,
            flip=options.flip,
            max_side=options.max_side,
            tile=options.tile,
            crf=options.crf,
            overlay=options.overlay,
            max_pixels=options.max_pixels,
            force=options.force,
        )
    )


def _set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="run.KEY=VALUE",
        help="e.g. run.device=cpu; may be repeated",
    )


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0.05 <= scale <= 8 for scale in scales):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers between 0.05 and 8, e.g. 0.5,0.75,1")
    return scales


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number")
    return int(text)


def add_ablate(commands: Any, command: Callable[[Any, str, str, str], argparse.ArgumentParser]) -> None:
    """Add the parser of `ablate`; ``command`` makes one with the options of every command with a configuration."""
    parser = command(
        commands,
        "ablate",
        "run variants of a configuration with several seeds and say what each part brings",
        "ablate --config configs/sample.toml --seeds 0,1,2 --variants baseline,mea+sr",
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=[], metavar="A,B", help="default: ablate.seeds of the configuration"
    )
    parser.add_argument(
        "--variants",
        type=_names,
        default=[],
        metavar="A,B",
        help="in order, the first is what the others are set against: baseline, mea, mea+srf, mea+srl, mea+sr, "
        "released, and those of [ablate.own] (default: ablate.variants of the configuration)",
    )
    parser.add_argument("--no-cost", action="store_true", help="do not measure what the variants cost")


def run_ablate_command(options: argparse.Namespace, request: "Request") -> None:
    """Run `ablate` as it was asked for."""
    from stages.commands.ablate.command import run_ablate

    run_ablate(request, seeds=options.seeds, variants=options.variants, cost=not options.no_cost)


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers, e.g. 0,1,2")
    return [int(part) for part in parts]


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names, e.g. baseline,mea+sr")
    return names
