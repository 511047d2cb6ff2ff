"""Measures that are kept in the workspace: read when somebody asks for them."""

import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from wsss.files import set_aside, write_text
from wsss.json_files import holds_sealed, parse_sealed, sealed_json

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

    def is_kept(self) -> bool:
        """Whether they are there as they were written, told without parsing them. Damaged ones are set aside."""
        if holds_sealed(self.path):
            return True
        if self.path.exists():
            _set_aside(self.path)
        return False

    @cached_property
    def values(self) -> Values:
        """All measures; with an entry per image they are many."""
        loaded: Values = parse_sealed(self.path.read_bytes())
        return loaded

    @cached_property
    def headline(self) -> Values:
        """The single figures among them."""
        path = self.path.with_name(f"{self.path.stem}{HEADLINE}")
        try:
            loaded: Values = parse_sealed(path.read_bytes())
            return loaded
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            _set_aside(path)
        single = {key: value for key, value in self.values.items() if not isinstance(value, list)}
        write_text(path, sealed_json(single))
        return single


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


def _set_aside(path: Path) -> None:
    print(f"{path}: damaged; set aside as {set_aside(path).name}, measured anew", file=sys.stderr)
