"""Measures that are kept in the workspace: read when somebody asks for them."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from wsss.artifacts import write_text

Values = dict[str, Any]
"""Flat keys with plain JSON values, described in docs/report.md."""
HEADLINE = "-headline.json"
"""How the name of the file with the single figures ends; `prune` knows both files by the fingerprint."""


class Measured:
    """A stage's measures, kept in two files: all of them, and the single figures alone, which are read at once.

    Args:
        key: see `measure_key`.
        path: of the JSON file with all of them.
    """

    def __init__(self, key: str, path: Path) -> None:
        self.key = key
        self.path = path

    @cached_property
    def values(self) -> Values:
        """All measures; with an entry per image they are many."""
        loaded: Values = json.loads(self.path.read_text(encoding="utf-8"))
        return loaded

    @cached_property
    def headline(self) -> Values:
        """The single figures among them."""
        path = self.path.with_name(f"{self.path.stem}{HEADLINE}")
        try:
            loaded: Values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            loaded = {key: value for key, value in self.values.items() if not isinstance(value, list)}
            write_text(path, json.dumps(loaded, ensure_ascii=False, allow_nan=False))
        return loaded


class Measures(Mapping[str, Values]):
    """The measures of a run's stages by name, read when asked for."""

    def __init__(self, measured: Mapping[str, Measured]) -> None:
        self.measured = measured

    def __getitem__(self, stage: str) -> Values:
        return self.measured[stage].values

    def __iter__(self) -> Iterator[str]:
        return iter(self.measured)

    def __len__(self) -> int:
        return len(self.measured)

    def headlines(self) -> dict[str, Values]:
        """The single figures of every stage."""
        return {stage: measured.headline for stage, measured in self.measured.items()}

    def keys_of_measures(self) -> dict[str, str]:
        """What each stage's measures depend on, as hashes."""
        return {stage: measured.key for stage, measured in self.measured.items()}
