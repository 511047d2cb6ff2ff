"""The command line of `ablate`."""

import argparse
from collections.abc import Callable
from typing import Any

from stages.commands import Request


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


def run_ablate_command(options: argparse.Namespace, request: Request) -> None:
    """Run `ablate` as it was asked for."""
    from stages.ablation.running import run_ablate

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
