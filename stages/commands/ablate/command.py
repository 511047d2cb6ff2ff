"""The command ablate: every variant with every seed, as ordinary runs that share what is the same."""

import hashlib
import itertools
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages import Planned, plan, software_versions
from stages.commands.ablate.page import as_text, write_outputs
from stages.commands.ablate.results import FailedRun, Results, RunResult, run_figures
from stages.commands.report import refresh_report
from stages.commands.report.gallery import refresh_overview
from stages.commands.report.measure import read_metrics
from stages.commands.report.page import duration
from stages.commands.run import compute_missing
from stages.commands.session import Request, Session, check_networks, introduce, open_session
from stages.workspace import computed
from wsss.config import AblateConfig, Config, TrainConfig, to_tree, unknown, with_overrides
from wsss.errors import UserError
from wsss.store.files import digest_of

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "baseline": {"mea": "false", "weight_sr_f": "0", "weight_sr_l": "0"},
    "mea": {"mea": "true", "weight_sr_f": "0", "weight_sr_l": "0"},
    "mea+srf": {"mea": "true", "weight_sr_l": "0"},
    "mea+srl": {"mea": "true", "weight_sr_f": "0"},
    "mea+sr": {"mea": "true"},
    "released": {"mea": "true", "sr_mode": '"released"'},
}
"""Settings of each stage by variant; a weight that is not named is the configuration's own, and must not be 0."""
SECTIONS = ("classify", "cams", "refine", "segment")
"""What an own variant may change: images and seeds are the same for all."""
NAME_LENGTH = 40
"""Of the ablation and of a variant's part: a run's name has both and the seed, and at most 100 characters."""


@dataclass(frozen=True)
class Variant:
    """One row of the table; ``config`` has the ``overrides``, and its seed is replaced run by run.

    ``slug`` is the name as part of a folder's name.
    """

    name: str
    slug: str
    overrides: tuple[str, ...]
    config: Config


@dataclass(frozen=True)
class Trial:
    """One variant with one seed: a run, planned."""

    variant: Variant
    seed: int
    session: Session

    @property
    def missing(self) -> list[Planned]:
        """The stages that are not cached."""
        return [item for item in self.session.planned.values() if not item.cached]


def run_ablate(request: Request, *, seeds: Sequence[int], variants: Sequence[str], cost: bool) -> None:
    """Run what is missing, and after each run bring the page up to date.

    Args:
        request: configuration, name of the ablation, workspace.
        seeds, variants: instead of the configuration's; empty: those.
        cost: measure what the variants cost, at the end.

    Raises:
        UserError: something to fix, found before anything is computed; or, after everything else is done, runs
            that failed.
    """
    given = [(key, list(value)) for key, value in (("seeds", seeds), ("variants", variants)) if value]
    asked = [f"ablate.{key}={json.dumps(value)}" for key, value in given]
    base = open_session(replace(request, overrides=[*request.overrides, *asked]))
    folder = base.run.folder
    if len(folder.name) > NAME_LENGTH:
        raise UserError(f"--name {folder.name}: expected at most {NAME_LENGTH} characters for an ablation")
    chosen = chosen_variants(base.config)
    introduce(base)
    for first, other in itertools.combinations(chosen, 2):
        if first.config == other.config:
            print(f"note: {other.name} and {first.name} have the same settings, so their rows will be equal")
    trials = [_trial(base, variant, seed) for seed in base.config.ablate.seeds for variant in chosen]
    for trial in {trial.variant.name: trial for trial in trials if trial.missing}.values():
        try:  # now, not after hours of other variants
            check_networks(trial.session)
        except UserError as error:
            raise UserError(f"variant '{trial.variant.name}': {error}") from None
    machine, classes = base.config.run, len(base.dataset.classes)
    settings = {v.name: [to_tree(v.config.classify), to_tree(v.config.segment)] for v in chosen}
    material = digest_of([settings, classes, machine.device, machine.precision, software_versions()])
    results = Results(
        name=folder.name,
        variants={variant.name: variant.overrides for variant in chosen},
        seeds=base.config.ablate.seeds,
        stages=base.config.ablate.stages,
        cost_material=material,
        costs=_kept_costs(folder, material),
    )
    results = _run(trials, results, folder)
    if cost and results.runs and not results.costs:
        print("\nmeasuring what the variants cost", flush=True)
        configs = {variant.name: variant.config for variant in chosen}
        results = replace(results, costs=variant_costs(configs, classes))
        write_outputs(folder, results)
    print(f"\n{as_text(results)}\n\n{folder / 'ablation.html'}\n{folder / 'ablation.json'}")
    if results.failed:
        raise UserError(
            "\n".join(f"{item.variant}, seed {item.seed}: {item.message}" for item in results.failed)
            + f"\n{len(results.failed)} of {results.planned} runs failed; the same command tries them again"
        )


def variant_costs(
    configs: Mapping[str, Config], classes: int, *, rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Measure the variants' segmentation networks side by side, on noise, with self-regulation on where there is any.

    Returns:
        The keys of `stages.commands.ablate.page.COSTS` by variant: medians over ``rounds`` for a training step of the
        configured batch (its ratio is to the first variant's), and for one image of the crop's size, forward.
    """
    from stages.training import training_network
    from wsss import cost
    from wsss.runtime.device import choose_device, choose_precision

    run = next(iter(configs.values())).run
    device = choose_device(run.device)
    on: dict[str, Any] = {"device": device, "precision": choose_precision(run, device)}
    networks, batches, steps = {}, {}, {}
    for name, config in configs.items():
        segment = replace(config.segment, weights="none")
        networks[name] = training_network(segment, classes, "segment")
        batches[name] = cost.synthetic_batch(segment, classes, device=device, seed=config.seed)
        steps[name] = cost.training_step(networks[name], batches[name], segment, **on)
    stepping = cost.interleaved_seconds(steps, rounds=rounds)
    ratios = cost.median_ratios(stepping)
    predictions = {
        name: cost.prediction(network.deploy(), batches[name].images[:1], **on)
        for name, network in networks.items()
    }
    predicting = cost.interleaved_seconds(predictions, rounds=rounds)
    costs = {}
    for name, network in networks.items():
        crop = configs[name].segment.crop
        counts = cost.network_cost(network, height=crop, width=crop)
        costs[name] = {
            "step_ms": 1000 * statistics.median(stepping[name]),
            "step_ratio": ratios[name],
            "inference_ms": 1000 * statistics.median(predicting[name]),
            **{key: float(count) for key, count in counts.items()},
        }
    return costs


def chosen_variants(config: Config) -> list[Variant]:
    """The variants of ``config.ablate.variants``, in order.

    Raises:
        UserError: an unknown name, an override that is none or may not be, or a variant whose weights the
            configuration sets to zero.
    """
    ablate = config.ablate
    known = {**dict.fromkeys(BUILT_IN), **ablate.own}
    for name in ablate.variants:
        if name not in known:
            raise UserError(f"ablate.variants: {unknown(name, known, 'variant')}")
    slugs = _slugs(list(known))
    plain = replace(config, ablate=AblateConfig())
    for name, overrides in ablate.own.items():
        _configured(plain, name, overrides)  # those that are not chosen are checked too
    variants = []
    for name in ablate.variants:
        overrides = ablate.own[name] if name in ablate.own else _built_in(name, config)
        variants.append(Variant(name, slugs[name], overrides, _configured(plain, name, overrides)))
    return variants


def estimate(trials: Sequence[Trial]) -> float | None:
    """Seconds that the missing stages will take: each as long as those of its name took on average.

    Artifacts that several trials share count once. None where nothing is known of a stage.
    """
    items = {item.path: item for trial in trials for item in trial.session.planned.values()}.values()
    known: dict[str, list[float]] = {}
    for item in items:
        if item.cached and (seconds := computed(item).get("seconds")) is not None:
            known.setdefault(item.name, []).append(seconds)
    missing = [item.name for item in items if not item.cached]
    return sum(statistics.mean(known[name]) for name in missing) if {*missing} <= {*known} else None


def _built_in(name: str, config: Config) -> tuple[str, ...]:
    """Overrides of a built-in variant in the stages of ``ablate.stages`` that this configuration trains."""
    trained = ("classify", "segment") if config.segment.supervision == "pseudo" else ("segment",)
    stages = [stage for stage in trained if stage in config.ablate.stages]
    if not stages:
        raise UserError(
            "ablate.stages = ['classify']: under segment.supervision = 'full' nothing but segment is trained; "
            "set ablate.stages=['segment']"
        )
    settings = BUILT_IN[name]
    for key in ("weight_sr_f", "weight_sr_l"):
        if key not in settings and not any(getattr(getattr(config, stage), key) > 0 for stage in stages):
            keys = " and ".join(f"{stage}.{key}" for stage in stages)
            raise UserError(
                f"variant '{name}': {keys} {'are' if len(stages) > 1 else 'is'} 0, so there would be nothing to see; "
                f"add --set {stages[-1]}.{key}=1 (or another weight), or leave the variant out with --variants"
            )
    overrides = [f"{stage}.{key}={value}" for stage in stages for key, value in settings.items()]
    if name == "baseline" and "segment" in stages:
        # Plain cross-entropy on the network's own head: no tags either.
        overrides.append("segment.weight_cls=0")
    if name not in ("mea+sr", "released") and "segment" in stages:
        own = ("weight_sr_p", "weight_detail")
        overrides += [f"segment.{key}=0" for key in own if getattr(config.segment, key)]
    return tuple(overrides)


def _configured(config: Config, name: str, overrides: Sequence[str]) -> Config:
    for text in overrides:
        if text.split(".")[0].strip() not in SECTIONS:
            raise UserError(
                f"variant '{name}': {text}: expected section.key=value of one of the sections {', '.join(SECTIONS)}; "
                "images, seeds and machine are the same for all variants"
            )
    return with_overrides(config, overrides, origin=f"variant '{name}'")


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """A folder name's part per variant; what is long, empty or like another (case aside) gets a short hash."""
    slugs = {name: re.sub(r"[^\w+-]+", "-", name).strip("-") for name in names}
    folded = [slug.casefold() for slug in slugs.values()]
    for name, slug in slugs.items():
        clash = name not in BUILT_IN and folded.count(slug.casefold()) > 1
        if clash or not slug or len(slug) > NAME_LENGTH:
            digest = hashlib.sha256(name.encode()).hexdigest()[:6]
            slugs[name] = f"{slug[: NAME_LENGTH - 7]}-{digest}".lstrip("-")
    return slugs


def _trial(base: Session, variant: Variant, seed: int) -> Trial:
    """An ordinary run of the variant: its data are the base's, already checked."""
    config = replace(variant.config, seed=seed)
    run = base.workspace.run(f"{base.run.folder.name}.{variant.slug}.s{seed}")
    planned = {item.name: item for item in plan(config, base.dataset, base.workspace.root)}
    return Trial(variant, seed, replace(base, config=config, planned=planned, run=run))


def _run(trials: Sequence[Trial], results: Results, folder: Path) -> Results:
    """Gather what is finished, compute the rest; seeds come first, so complete rows are there early."""
    done = [trial for trial in trials if not trial.missing]
    if done:
        print(f"{len(done)} of {len(trials)} runs are there already")
        results = replace(results, runs=[_finished(trial, []) for trial in done])
        write_outputs(folder, results)
    for number, trial in enumerate(trials, start=1):
        if trial in done:
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
            results = replace(results, runs=[*results.runs, _finished(trial, fresh)])
        write_outputs(folder, results)
    return results


def _finished(trial: Trial, fresh: Sequence[str]) -> RunResult:
    """A finished run's figures, its report brought up to date."""
    session = trial.session
    measured = refresh_report(session)
    refresh_overview(session, fresh)
    seconds = {
        name: computed(item).get("seconds")
        for name, item in session.planned.items()
        if isinstance(getattr(session.config, name), TrainConfig)
    }
    figures = run_figures({name: read_metrics(path) for name, path in measured.items()}, seconds)
    return RunResult(trial.variant.name, trial.seed, session.run.folder.name, figures)


def _kept_costs(folder: Path, material: str) -> dict[str, dict[str, float]]:
    """What was measured before, if nothing that it depends on has changed."""
    try:
        before = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
        return dict(before["cost"]) if before["cost_material"] == material else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
