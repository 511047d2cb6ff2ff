"""Speed and memory, each figure beside a plain reference of the same run: a time by itself describes a machine."""

from dataclasses import dataclass
from importlib import import_module

MODULES = {
    "stages": ("cams", "refine"),
    "training": ("step", "loader"),
    "commands": ("start", "report", "memory"),
}
"""Functions of a scale by the module that has them."""


@dataclass(frozen=True)
class Row:
    """One figure, of the program and of the plain way, and its bar, such as ``ratio >= 2.5`` or ``ours <= 3``."""

    what: str
    ours: float
    reference: float
    unit: str
    bar: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the reference."""
        return self.ours / self.reference

    @property
    def reached(self) -> bool | None:
        """Whether the bar is reached; None without one. NaN reaches none."""
        if not self.bar:
            return None
        figure, sign, value = self.bar.split()
        found = {"ratio": self.ratio, "ours": self.ours}[figure]
        return found >= float(value) if sign == ">=" else found <= float(value)

    def __str__(self) -> str:
        """A line of the Markdown table under `HEAD`."""
        verdict = {None: "", True: "reached", False: "**missed**"}[self.reached]
        figures = f"{self.ours:.3g} | {self.reference:.3g} {self.unit} | {self.ratio:.3g}"
        return f"| {self.what} | {figures} | {self.bar} | {verdict} |"


HEAD = "| what | ours | reference | ratio | bar | |\n|---|---|---|---|---|---|"


def run(name: str, scale: float) -> list[Row]:
    """The rows of one benchmark."""
    module = next(module for module, names in MODULES.items() if name in names)
    rows: list[Row] = getattr(import_module(f"tests.benchmarks.{module}"), name)(scale)
    return rows
