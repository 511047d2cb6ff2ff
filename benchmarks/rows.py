"""What every benchmark reports alike: rows of a figure against its bar, printed and written as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: was measured, in words.
        value: the figure.
        unit: such as ``x`` for a ratio to the reference, ``s``, ``points``.
        bar: what it is held against, or None.
        at_least: whether the bar is a lower bound.
    """

    what: str
    value: float
    unit: str
    bar: float | None = None
    at_least: bool = True

    @property
    def passed(self) -> bool | None:
        """Whether the bar is reached; None without one. NaN reaches none."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | figure | bar | |", "|---|---|---|---|"]
    for row in rows:
        bar = "" if row.bar is None else f"{'≥' if row.at_least else '≤'} {row.bar:g} {row.unit}"
        verdict = {None: "", True: "reached", False: "**missed**"}[row.passed]
        lines.append(f"| {row.what} | {row.value:.3g} {row.unit} | {bar} | {verdict} |")
    return "\n".join(lines)


def report(rows: Sequence[Row], figures: Mapping[str, Any], path: Path | None) -> None:
    """Print the table, and write rows and all other figures to ``path`` where one is given."""
    print(f"\n{table(rows)}", flush=True)
    if path:
        listed = [asdict(row) | {"passed": row.passed} for row in rows]
        path.write_text(json.dumps({"rows": listed, "figures": figures}, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> list[Row]:
    """The rows that `report` wrote."""
    stored = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Row(**{name: value for name, value in row.items() if name != "passed"}) for row in stored]
