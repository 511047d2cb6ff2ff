"""The figures of an ablation: rows, summaries, and what the outputs say about them."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.commands.ablate.command import BUILT_IN
from stages.commands.ablate.page import COSTS, as_json, as_page, as_text
from stages.commands.ablate.results import BY_KEY, METRICS, FailedRun, Results, RunResult, run_figures
from tests.test_report_page import Page

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}"


def synthetic_results(
    variants: Sequence[str] = ("baseline", "mea", "mea+sr"),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    finished: int | None = None,
    step: float = 0.02,
) -> Results:
    """Each variant is better than the one before by about ``step`` in every metric; ``finished`` runs of all."""
    dice = random.Random(0)
    runs = []
    for seed in seeds:
        base = dice.gauss(0.5, 0.01)
        for index, name in enumerate(variants):
            figures: dict[str, float | None] = {}
            for metric in METRICS:
                gain = index * step * (-1 if metric.better == "less" else 1)
                figures[metric.key] = base + gain + dice.gauss(0, 0.001)
            runs.append(RunResult(name, seed, f"x.{index}.s{seed}", figures))
    return Results(
        name="synthetic",
        variants=dict.fromkeys(variants, ("segment.mea=true",)),
        seeds=tuple(seeds),
        stages=("classify", "segment"),
        runs=runs[:finished],
    )


def test_deviations_cover_nothing_but_the_seeds_that_both_have() -> None:
    results = synthetic_results(finished=5)  # seed 1 of mea+sr is missing, and all of seed 2
    assert as_text(results).startswith("5 of 9 runs")
    assert "not finished" in as_text(results)
    mea, last = (results.summary(name, "segment.miou") for name in ("mea", "mea+sr"))
    assert mea is not None
    assert (mea.n, mea.pairs) == (2, 2)
    assert mea.low is not None
    assert last is not None
    assert (last.n, last.pairs, last.sd, last.low, last.verdict) == (1, 1, None, None, "")
    first = results.summary("baseline", "segment.miou")
    assert first is not None
    assert (first.n, first.difference, first.pairs) == (2, None, 0)


def test_verdicts_follow_what_is_better() -> None:
    results = synthetic_results()
    for metric in METRICS:
        found = results.summary("mea+sr", metric.key)
        assert found is not None
        assert found.verdict == ("gain" if metric.better else "other"), metric.key
    back = synthetic_results(("mea+sr", "baseline"), step=-0.02)
    for key in ("segment.miou", "segment.failure1.missed"):
        worse = back.summary("baseline", key)
        assert worse is not None
        assert worse.verdict == "loss"


def test_what_a_data_set_cannot_give_is_a_dash() -> None:
    nothing: dict[str, float | None] = dict.fromkeys(BY_KEY)
    only = replace(synthetic_results(), runs=[RunResult("mea", 0, "x", nothing | {"cams.miou": 0.5})])
    assert [metric.key for metric in only.known] == ["cams.miou"]
    text = as_text(only)
    assert re.search(r"^baseline +- ", text, flags=re.MULTILINE)
    assert re.search(r"^mea +50\.0 ", text, flags=re.MULTILINE)
    empty = replace(only, runs=[RunResult("mea", 0, "x", nothing)])
    assert "1 of 9 runs" in as_text(empty)
    as_page(empty)


def test_failure_rates_from_a_runs_metrics() -> None:
    values = {
        "failure1.missed_by_size": [0.5, 0.25, 1.0, None],
        "failure1.objects_by_size": [2, 4, 10, 0],
        "failure1.recall_thin": 0.75,
        "miou": 0.4,
    }
    figures = run_figures({"segment": values}, {"segment": 12.5})
    assert figures["segment.failure1.missed"] == pytest.approx(2 / 6)
    assert figures["segment.failure1.thin_missed"] == 0.25
    assert figures["segment.miou"] == 0.4
    assert figures["segment.seconds"] == 12.5
    assert figures["classify.seconds"] is None
    assert figures["cams.miou"] is None
    none = {"failure1.missed_by_size": [None] * 4, "failure1.objects_by_size": [0] * 4}
    assert run_figures({"segment": none}, {})["segment.failure1.missed"] is None


def test_a_single_seed_says_so() -> None:
    results = synthetic_results(seeds=(5,))
    assert "(one seed: no interval)" in as_text(results)
    assert "One seed: no interval" in as_page(results)


def flattened(value: Any, prefix: str, names: set[str]) -> set[str]:
    """Keys as docs/ablation.md writes them."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return flattened(value[0], f"{prefix}[]", names)
    if not isinstance(value, dict):
        return {prefix}
    keys: set[str] = set()
    for key, item in value.items():
        shown = "METRIC" if key in BY_KEY else "VARIANT" if key in names else key
        keys |= flattened(item, f"{prefix}.{shown}" if prefix else shown, names)
    return keys


def test_every_key_is_documented_and_every_documented_key_is_there() -> None:
    results = synthetic_results()
    costs = {name: dict.fromkeys(COSTS, 1.0) for name in results.variants}
    results = replace(results, costs=costs, failed=[FailedRun("mea", 7, "x")])
    values = json.loads(json.dumps(as_json(results), allow_nan=False))
    text = (Path(__file__).parent.parent / "docs" / "ablation.md").read_text(encoding="utf-8")
    body, metrics = text.split("## ablation.json")[1].split("| metric | value |")
    documented = set(re.findall(r"^\| `([^`]+)`", body, flags=re.MULTILINE))
    assert flattened(values, "", set(results.variants)) == documented
    names = set(re.findall(r"^\| `([^`]+)`", metrics, flags=re.MULTILINE))
    assert names == {metric.key.split(".", 1)[1] for metric in METRICS}
    table = text.split("| variant |")[1].split("\n\n")[0]
    variants = set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE))
    assert variants == set(BUILT_IN)


def test_hostile_names_are_only_text() -> None:
    results = synthetic_results(("baseline", HOSTILE, "a\nb" * 30))
    results = replace(results, name=HOSTILE, failed=[FailedRun(HOSTILE, 3, HOSTILE)])
    page = Page(as_page(results))
    assert len(page.all("script")) == 1  # the page's own, which sorts
    assert HOSTILE in "".join(page.words)
    assert all((link["href"] or "").startswith("../x.") for link in page.all("a"))
    assert not page.all("img")
    assert "a\nb" not in as_text(results)


def test_the_page_says_what_the_intervals_are_and_which_exclude_zero() -> None:
    page = as_page(synthetic_results())
    assert "over training seeds, all on the same images" in page
    assert "mea: better in CAM seed (mIoU" in page
    none = as_page(synthetic_results(step=0.0, seeds=(0, 1)))
    assert "9 of 9 runs" in page
    assert page.count("<svg") == page.count("<figcaption>") == 6
    assert "Which intervals exclude 0" in none
