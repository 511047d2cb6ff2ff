"""The ablation's words: how much it rests on, what its intervals say, which exclude 0."""

from collections.abc import Mapping

from stages.ablation.metrics import BY_KEY
from stages.ablation.results import Results

MAIN = ("segment.miou", "refine.miou", "cams.miou")
"""The figure that matters most comes first; a data set may have no masks for it."""
COSTS: Mapping[str, str] = {
    "step_ms": "ms per training step",
    "step_ratio": "against the plain step",
    "inference_ms": "ms of inference",
    "parameters": "deployed parameters",
    "exit_parameters": "parameters of the exits",
    "multiply_adds": "deployed multiply-adds",
    "exit_multiply_adds": "multiply-adds of the exits",
}
INTERVALS = (
    "Every difference is paired: a variant's run minus the first variant's run with the same seed. Intervals are 95 % "
    "intervals of Student's t over training seeds, all on the same photographs: they say what other seeds could "
    "change, and nothing about other photographs. With so few seeds they are wide, and take the differences as "
    "normal. Where many rows and figures are looked at, about one interval in twenty excludes 0 by chance."
)
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
        better: list[str] = []
        worse: list[str] = []
        for key in (key for key in results.known_keys() if BY_KEY[key].unit == "share"):
            summary = results.summary(variant, key)
            if summary and summary.verdict:
                (better if summary.verdict == "gain" else worse).append(BY_KEY[key].title)
        parts = [
            f"{word} in {', '.join(titles)}"
            for word, titles in (("better", better), ("worse", worse))
            if titles
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
    return f"{value / 1e9:.2f} G" if value >= 1e9 else f"{value / 1e6:.2f} M"


def _seeds(results: Results) -> str:
    count = len(results.seeds)
    listed = ", ".join(map(str, results.seeds))
    return f"{len(results.variants)} variants, seed{'s' if count > 1 else ''} {listed}"
