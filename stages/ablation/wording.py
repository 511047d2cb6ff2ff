"""The ablation's words: how much it rests on, what its intervals say, which exclude 0."""

from collections.abc import Mapping

from stages.ablation.metrics import BY_KEY, STAGES
from stages.ablation.results import Results

MAIN = ("segment.miou", "refine.miou", "cams.miou")
"""The figure that matters most comes first; a data set may have no masks for it."""
COSTS: Mapping[str, tuple[str, str]] = {
    "step_ms": ("ms a step", "ms per training step"),
    "step_ratio": ("of plain", "against the plain step"),
    "inference_ms": ("ms inference", "ms of inference"),
    "parameters": ("parameters", "deployed parameters"),
    "exit_parameters": ("of exits", "parameters of the exits"),
    "multiply_adds": ("multiply-adds", "deployed multiply-adds"),
    "exit_multiply_adds": ("of exits", "multiply-adds of the exits"),
}
"""By key: heading on the terminal, and on the page."""
INTERVALS = (
    "Every difference is paired: a variant's run minus the first variant's run with the same seed. Intervals are 95 % "
    "intervals of Student's t over training seeds, all on the same photographs: they say what other seeds could "
    "change, and nothing about other photographs. With so few seeds they are wide, and take the differences as "
    "normal. Where many rows and figures are looked at, about one interval in twenty excludes 0 by chance."
)
UNITS = ((" G", 1e9), (" M", 1e6), (" k", 1e3))
ONE_SEED = "One seed: no interval, and no way to tell a difference from chance."


def basis(results: Results) -> str:
    """How many runs the table rests on."""
    text = f"{len(results.runs)} of {results.planned} runs: {_seeds(results)}"
    if results.failed:
        text += f"; {len(results.failed)} failed"
    if len(results.runs) + len(results.failed) < results.planned:
        text += "; not finished, the same command goes on"
    return text


def main_metric(results: Results) -> str | None:
    """The mIoU of the latest stage that has one."""
    known = results.known_keys()
    return next((key for key in MAIN if key in known), None)


def sure_sentences(results: Results) -> list[str]:
    """One sentence per variant: in which figures its interval excludes 0, and in which direction."""
    sentences = []
    for variant in results.variants[1:]:
        found: dict[str, dict[str, list[str]]] = {"gain": {}, "loss": {}}
        for metric in map(BY_KEY.__getitem__, results.known_keys()):
            summary = results.summary(variant, metric.key)
            if summary and summary.verdict in found:
                found[summary.verdict].setdefault(STAGES[metric.stage], []).append(metric.short)
        parts = [
            f"{word} in " + ", ".join(f"{stage} ({', '.join(names)})" for stage, names in stages.items())
            for word, stages in (("better", found["gain"]), ("worse", found["loss"]))
            if stages
        ]
        if parts:
            sentences.append(f"{variant}: {'; '.join(parts)}.")
    return sentences


def cost_text(results: Results, variant: str, key: str) -> str:
    """A cost in its unit; a dash where it was not measured."""
    value = results.costs.get(variant, {}).get(key)
    if value is None:
        return "-"
    if key == "step_ratio":
        return f"{value:.2f}"
    if key.endswith("_ms"):
        return f"{value:.1f}"
    unit, factor = next((pair for pair in UNITS if value >= pair[1]), ("", 1.0))
    return f"{value / factor:.2f}{unit}" if unit else f"{value:.0f}"


def _seeds(results: Results) -> str:
    count = len(results.seeds)
    listed = ", ".join(map(str, results.seeds))
    return f"{len(results.variants)} variants, seed{'s' if count > 1 else ''} {listed}"
