"""Commands about the data itself: derive tags."""

from pathlib import Path

from data.derive import as_csv, derive_tags
from data.sources.rows import plural
from stages.commands import Request
from wsss.artifacts import write_text
from wsss.config import load_config
from wsss.errors import UserError


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
    rows = derive_tags(config, progress=True)
    write_text(path, as_csv(rows, splits=config.source == "folder"))
    origins = sorted({row.derived_from for row in rows})
    for origin in origins:
        print(
            f"{plural(sum(row.derived_from == origin for row in rows), 'image')}: tags derived from {origin}"
        )
    hint = f'data.tags = "{path}"' if config.source == "voc" else f'data.labels = "{path}"'
    print(f"{path} written; used where the configuration says {hint}")
