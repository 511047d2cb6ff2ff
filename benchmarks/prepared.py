"""What benchmarks of a stage share: arguments, and the sample's run, trained once in a workspace of their own."""

import argparse
from pathlib import Path

from stages import execute
from stages.commands import Request, Session, open_session

CONFIG = Path(__file__).parent.parent / "configs" / "sample.toml"


def sample_session(workspace: Path, upto: str) -> Session:
    """The sample's run with all stages up to ``upto`` computed, or found in the cache."""
    session = open_session(Request(CONFIG, [], "bench", workspace))
    for name, item in session.planned.items():
        execute(item, session.planned, session.config, session.dataset, say=print)
        if name == upto:
            break
    return session


def arguments(description: str | None) -> argparse.Namespace:
    """``images``, ``workspace`` and ``json`` of the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=60, help="of the sample's training photographs")
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="keeps the trained classifier")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return parser.parse_args()
