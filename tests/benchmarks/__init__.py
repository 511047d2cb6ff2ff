"""Speed and memory, each figure beside a plain reference of the same run: a time by itself describes a machine."""

from dataclasses import dataclass
from importlib import import_module

BENCHMARKS = {
    "cams": "stages",
    "refine": "stages",
    "step": "training",
    "loader": "training",
    "start": "commands",
    "unchanged": "commands",
    "report": "commands",
    "memory": "commands",
    "accelerator": "training",
}
"""Name -> module of this folder that has a function of the name."""
HEAD = "| what | ours | reference | ratio | bar | |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: was measured.
        ours: the program's figure.
        reference: the plain way's.
        unit: of both.
        at_least: bar of the ratio ours / reference.
        at_most: the same from above.
        ours_at_most: bar of ours itself.
    """

    what: str
    ours: float
    reference: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    ours_at_most: float | None = None

    @property
    def ratio(self) -> float:
        """Ours over the reference."""
        return self.ours / self.reference

    @property
    def bar(self) -> tuple[str, bool] | None:
        """The bar in words, and whether it is reached; NaN reaches none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g} x", self.ratio >= self.at_least
        if self.at_most is not None:
            return f"≤ {self.at_most:g} x", self.ratio <= self.at_most
        if self.ours_at_most is not None:
            return f"≤ {self.ours_at_most:g} {self.unit}".rstrip(), self.ours <= self.ours_at_most
        return None

    def __str__(self) -> str:
        """A line of the Markdown table under `HEAD`."""
        words, reached = self.bar or ("", None)
        verdict = {None: "", True: "reached", False: "**missed**"}[reached]
        figures = f"{self.ours:.3g} | {self.reference:.3g} {self.unit} | {self.ratio:.3g}"
        return f"| {self.what} | {figures} | {words} | {verdict} |"


def run(name: str, scale: float) -> list[Row]:
    """The rows of one benchmark."""
    rows: list[Row] = getattr(import_module(f"tests.benchmarks.{BENCHMARKS[name]}"), name)(scale)
    return rows
