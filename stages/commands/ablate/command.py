"""The command `ablate`: every variant with every seed, as ordinary runs that share what is the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from stages import Planned, plan
from stages.commands.ablate.page import Outputs
from stages.commands.ablate.results import FailedRun, Results, RunResult, run_figures
from stages.commands.ablate.variants import Variant, chosen_variants, same_settings
from stages.commands.report.page import duration
from stages.commands.session import (
    Request,
    Session,
    bring_overview_up_to_date,
    compute_missing,
    introduce,
    open_session,
    refresh_report,
)
from stages.workspace import computed
from wsss.config import AblateConfig, Config, TrainConfig
from wsss.errors import UserError

NAME_LENGTH = 40
"""Of the ablation: its runs' names add the variant and the seed, and a run's name has at most 100 characters."""


@dataclass(frozen=True)
class Trial:
    """One variant with one seed.

    Attributes:
        variant: of the configuration.
        seed: of the run.
        session: the run, planned.
    """

    variant: Variant
    seed: int
    session: Session

    @property
    def missing(self) -> list[Planned]:
        """The stages that are not cached."""
        return [item for item in self.session.planned.values() if not item.cached]


def run_ablate(request: Request, *, seeds: Sequence[int], variants: Sequence[str], cost: bool) -> None:
    """Run what is missing, and after each run bring the table, the page and the chart up to date.

    Args:
        request: configuration, name of the ablation, workspace.
        seeds: instead of the configuration's; empty: those.
        variants: instead of the configuration's; empty: those.
        cost: measure what the variants cost, at the end.

    Raises:
        UserError: something to mend, found before anything is computed; or, after everything else is done, runs
            that failed.
    """
    asked = [f"ablate.{name}={json.dumps(list(value))}" for name, value in _given(seeds, variants)]
    base = open_session(replace(request, overrides=[*request.overrides, *asked]))
    if len(base.run.folder.name) > NAME_LENGTH:
        raise UserError(
            f"--name {base.run.folder.name}: expected at most {NAME_LENGTH} characters for an ablation"
        )
    chosen = chosen_variants(base.config)
    introduce(base)
    for sentence in same_settings(chosen):
        print(f"note: {sentence}")
    trials = [_trial(base, variant, seed) for seed in base.config.ablate.seeds for variant in chosen]
    _check_networks(trials)
    configs = {item.name: item.config for item in chosen}
    outputs = Outputs(base.run.folder, base.config.run, configs, len(base.dataset.classes))
    results = _run(trials, _nothing_yet(base, chosen), outputs)
    results = outputs.write(results, measure_costs=cost and bool(results.runs))
    print()
    print(outputs.text(results))
    if results.failed:
        raise UserError(
            "\n".join(f"{item.variant}, seed {item.seed}: {item.message}" for item in results.failed)
            + f"\n{len(results.failed)} of {results.planned} runs failed; the same command tries them again"
        )


def estimate(trials: Sequence[Trial]) -> float | None:
    """Seconds that the missing stages will take: each as long as those of its name took on average.

    Artifacts that several trials share count once. None where nothing is known of a stage.
    """
    items = {item.path: item for trial in trials for item in trial.session.planned.values()}
    known: dict[str, list[float]] = {}
    for item in items.values():
        seconds = computed(item).get("seconds") if item.cached else None
        if seconds is not None:
            known.setdefault(item.name, []).append(seconds)
    missing = [item for item in items.values() if not item.cached]
    if not all(item.name in known for item in missing):
        return None
    return sum(sum(known[item.name]) / len(known[item.name]) for item in missing)


def _given(seeds: Sequence[int], variants: Sequence[str]) -> list[tuple[str, Sequence[Any]]]:
    return [(name, value) for name, value in (("seeds", seeds), ("variants", variants)) if value]


def _run(trials: Sequence[Trial], results: Results, outputs: Outputs) -> Results:
    """Gather what is finished, compute the rest; seeds come first, so complete rows are there early."""
    for trial in trials:
        if not trial.missing:
            results = _with_run(results, trial, [])
    done = {run.run for run in results.runs}
    if done:
        print(f"{len(done)} of {len(trials)} runs are there already")
        results = outputs.write(results)
    for number, trial in enumerate(trials, start=1):
        if trial.session.run.folder.name in done:
            continue
        left = estimate(trials)
        rest = "" if left is None else f", about {duration(left)} to go"
        print(f"\n[{number}/{len(trials)}] {trial.variant.name}, seed {trial.seed}{rest}", flush=True)
        try:
            fresh = compute_missing(trial.session)
        except UserError as error:
            print(f"failed: {error}; the other runs go on", flush=True)
            failed = FailedRun(trial.variant.name, trial.seed, str(error))
            results = replace(results, failed=[*results.failed, failed])
        else:
            results = _with_run(results, trial, fresh)
        results = outputs.write(results)
    return results


def _with_run(results: Results, trial: Trial, fresh: Sequence[str]) -> Results:
    """The results with a finished run, its report brought up to date."""
    session = trial.session
    subject = refresh_report(session)
    bring_overview_up_to_date(session, fresh)
    seconds = {
        name: computed(item).get("seconds")
        for name, item in session.planned.items()
        if isinstance(getattr(session.config, name), TrainConfig)
    }
    figures = run_figures(subject.measures, seconds)
    run = RunResult(trial.variant.name, trial.seed, session.run.folder.name, figures)
    return replace(results, runs=[*results.runs, run])


def _nothing_yet(base: Session, chosen: Sequence[Variant]) -> Results:
    return Results(
        name=base.run.folder.name,
        variants=tuple(variant.name for variant in chosen),
        seeds=base.config.ablate.seeds,
        overrides={variant.name: variant.overrides for variant in chosen},
        stages=base.config.ablate.stages,
        runs=[],
    )


def _trial(base: Session, variant: Variant, seed: int) -> Trial:
    """An ordinary run of the variant: its data are the base's, already checked."""
    config = replace(variant.config, seed=seed, ablate=AblateConfig())
    run = base.workspace.run(f"{base.run.folder.name}.{variant.slug}.s{seed}")
    planned = {item.name: item for item in plan(config, base.dataset, base.workspace.root)}
    return Trial(variant, seed, replace(base, config=config, planned=planned, run=run))


def _check_networks(trials: Sequence[Trial]) -> None:
    """Refuse what could not be built before anything computes for hours; equal settings once."""
    from stages.training import check_training

    checked: list[Any] = []
    for trial in trials:
        config: Config = trial.session.config
        for item in trial.missing:
            section = getattr(config, item.name)
            if isinstance(section, TrainConfig) and section not in checked:
                checked.append(section)
                try:
                    check_training(section, item.name, config.run)
                except UserError as error:
                    if str(error).startswith("run."):
                        raise  # the machine, not the variant
                    raise UserError(f"variant '{trial.variant.name}': {error}") from None
