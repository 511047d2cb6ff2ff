"""A classification network to measure with: the sample's, trained once in a workspace of the benchmarks' own."""

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
