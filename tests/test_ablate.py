"""The command `ablate`: its variants, every variant with every seed, interruption, costs, and what is refused."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_pipeline import EXIT_INTERRUPTED, EXIT_USER_ERROR, main
from stages.commands.ablate.command import BUILT_IN, chosen_variants, variant_costs
from stages.commands.session import open_session
from stages.workspace import Workspace, prune
from tests.pipelines import SETTINGS, request
from tests.reports import write_synthetic
from tests.trees import make_folder_tree
from wsss.config import AblateConfig, Config, DataConfig, RunConfig, SegmentConfig, load_config
from wsss.errors import UserError

ROOT = Path(__file__).parent.parent
ALL = list(BUILT_IN)
PAIR = ("--seeds", "0,1", "--variants", "baseline,mea+sr")
STAGES = ("classify", "cams", "refine", "segment")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=6, n_val=3)


def arguments(data: DataConfig, workspace: Path, *extra: str) -> list[str]:
    settings = [part for setting in [f"data.root={data.root}", *SETTINGS] for part in ("--set", setting)]
    return ["ablate", "--workspace", str(workspace), "--name", "tiny", *settings, *extra]


def ablate(data: DataConfig, workspace: Path, *extra: str) -> int:
    return main(arguments(data, workspace, *extra))


def values_in(workspace: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((workspace / "tiny" / "ablation.json").read_text(encoding="utf-8"))
    return loaded


def artifacts(workspace: Path) -> dict[str, float]:
    """When each artifact was written, by stage and name."""
    return {f"{p.parent.name}/{p.name}": p.stat().st_mtime_ns for p in workspace.glob("artifacts/*/*.h5")}


def write_results(data: DataConfig, workspace: Path, variant: str, seed: int, *extra: str) -> None:
    """Artifacts of a variant's run, without training: better by two pixels with MEA, by another with SR-F."""
    base = load_config(None, [f"ablate.variants=['{variant}']", *extra])
    overrides = [*extra, *chosen_variants(base)[0].overrides, f"seed={seed}"]
    session = open_session(request(data, workspace, *overrides, name="other"))
    section = session.config.segment
    missing = tuple(name for name, item in session.planned.items() if not item.cached)
    write_synthetic(session, 6 - 2 * section.mea - bool(section.weight_sr_f) - seed, missing)


@pytest.mark.slow
def test_an_interrupted_ablation_resumes_with_what_is_missing(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = (*PAIR, "--set", "segment.supervision=full")  # one stage instead of four
    command = [sys.executable, "run_pipeline.py", *arguments(data, tmp_path, *chosen)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "tiny" / "ablation.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait() == EXIT_INTERRUPTED
    partial = values_in(tmp_path)
    done = len(partial["runs"])
    assert 1 <= done < 4
    assert f"{done} of 4 runs" in (tmp_path / "tiny" / "ablation.html").read_text(encoding="utf-8")
    before = artifacts(tmp_path)

    assert ablate(data, tmp_path, *chosen) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    names = ["baseline, seed 0", "mea+sr, seed 0", "baseline, seed 1", "mea+sr, seed 1"]
    assert [line.split(", about")[0] for line in lines] == [
        f"[{n}/4] {name}" for n, name in enumerate(names[done:], start=done + 1)
    ]
    assert lines[-1].endswith(" to go")
    after = artifacts(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) == 4
    values = values_in(tmp_path)
    assert len(values["runs"]) == values["runs_planned"] == 4
    assert values["runs"][0]["figures"] == partial["runs"][0]["figures"]
    assert values["summary"]["mea+sr"]["segment.miou"]["pairs"] == 2
    assert set(values["cost"]) == {"baseline", "mea+sr"}
    report = json.loads((tmp_path / "tiny.mea+sr.s1" / "report.json").read_text(encoding="utf-8"))
    assert report["segment.miou"] == values["runs"][3]["figures"]["segment.miou"]
    assert (report["seed"], report["config"]["segment.mea"]) == (1, True)
    assert not any(key.startswith("ablate.") for key in report["config"])
    assert (tmp_path / "tiny.mea+sr.s1" / "overview.png").exists()
    assert main(["compare", "tiny.baseline.s0", "tiny.mea+sr.s0", "--workspace", str(tmp_path)]) == 0

    removed = [path for path, _ in prune(Workspace(tmp_path), dry_run=False)]
    assert not [path for path in removed if path.suffix in (".h5", ".json")]
    assert ablate(data, tmp_path, *chosen) == 0
    assert "4 of 4 runs are there already" in capsys.readouterr().out
    assert artifacts(tmp_path) == after


@pytest.mark.slow
def test_variants_share_what_is_the_same_and_gains_are_seen(data: DataConfig, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        for variant in ("baseline", "mea", "mea+srf"):
            write_results(data, tmp_path, variant, seed, "ablate.stages=['segment']")
    chosen = ("--set", "ablate.stages=['segment']", "--variants", "baseline,mea,mea+srf", "--no-cost")
    assert ablate(data, tmp_path, *chosen) == 0
    names = [name.split("/")[0] for name in artifacts(tmp_path)]
    assert {stage: names.count(stage) for stage in STAGES} == dict(zip(STAGES, (3, 3, 3, 9), strict=True))
    values = values_in(tmp_path)
    assert [run["run"] for run in values["runs"][:4]] == [
        *(f"tiny.{variant}.s0" for variant in ("baseline", "mea", "mea+srf")),
        "tiny.baseline.s1",
    ]
    assert values["cost"] is None
    gain = values["summary"]["mea"]["segment.miou"]
    assert gain["difference"] > 0
    assert gain["verdict"] == "gain"
    assert values["summary"]["mea"]["cams.miou"]["difference"] == 0
    assert "mea: better in validation (mIoU" in " ".join(values["excludes_zero"])


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = 'ablate.own={bad=["segment.lr=1e30", "segment.epochs=3"], same=["segment.mea=true"]}'
    for seed in (0, 1):
        write_results(data, tmp_path, "mea+sr", seed)
    chosen = ("--set", own, "--seeds", "0,1", "--variants", "mea+sr,bad,same", "--no-cost")
    assert ablate(data, tmp_path, *chosen) == EXIT_USER_ERROR
    captured = capsys.readouterr()
    assert "2 of 6 runs failed" in captured.err
    assert "bad, seed 0: " in captured.err
    assert "not finite" in captured.err
    assert "4 of 6 runs" in captured.out
    assert "same and mea+sr have the same settings, so their rows will be equal" in captured.out
    assert [(item["variant"], item["seed"]) for item in values_in(tmp_path)["failed"]] == [
        ("bad", 0),
        ("bad", 1),
    ]


@pytest.mark.slow
def test_costs_are_measured_once_and_kept(data: DataConfig, tmp_path: Path) -> None:
    for variant in ("baseline", "mea+sr"):
        write_results(data, tmp_path, variant, 0)
    costs = []
    for extra in ([], [], ["--no-cost"]):
        assert ablate(data, tmp_path, "--seeds", "0", "--variants", "baseline,mea+sr", *extra) == 0
        costs.append(values_in(tmp_path)["cost"])
    assert costs[0] == costs[1] == costs[2]
    assert costs[0]["baseline"]["step_ratio"] == 1


def test_costs_compare_the_variants_with_the_first() -> None:
    full = SegmentConfig(
        backbone="tf_efficientnet_lite0", weights="bundled", output_stride=16, exits=(3, 4), exit_channels=8,
        head="light", head_channels=8, crop=32, batch=2,
    )  # fmt: skip
    plain = replace(full, mea=False, weight_sr_f=0.0, weight_sr_l=0.0)
    run = RunConfig(device="cpu", precision="fp32")
    costs = variant_costs(
        {"plain": Config(segment=plain, run=run), "full": Config(segment=full, run=run)}, 2, rounds=1
    )
    first, other = costs["plain"], costs["full"]
    assert first["step_ratio"] == 1
    assert other["step_ratio"] == pytest.approx(other["step_ms"] / first["step_ms"])
    assert first["exit_parameters"] == first["exit_multiply_adds"] == 0
    assert min(other["exit_parameters"], other["exit_multiply_adds"], other["inference_ms"]) > 0
    for key in ("parameters", "multiply_adds"):
        assert first[key] == other[key] > 0


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        (["--variants", "baseline,mea+sfr"], "unknown variant 'mea+sfr'; did you mean 'mea+sr'"),
        (["--seeds", "1,1"], "none of them twice"),
        (["--set", "segment.weight_sr_f=0", "--set", "classify.weight_sr_f=0"], "segment.weight_sr_f=1"),
        (["--set", 'ablate.own={"mea"=["segment.exits=[9]"]}'], "variant 'mea': segment.exits"),
        (["--name", "n" * 41], "at most 40 characters"),
        (["--set", "segment.backbone=resnet_18"], "resnet_18"),
        (["--set", "run.device=cuda:9"], "run.device = 'cuda:9'"),
    ],
)
def test_mistakes_end_in_a_short_message_before_anything_is_computed(
    data: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], part: str
) -> None:
    assert ablate(data, tmp_path, *extra) == EXIT_USER_ERROR
    assert part in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.h5"))
    assert not list(tmp_path.rglob("run.json"))


def test_variants_differ_from_the_configuration_in_their_own_keys_only() -> None:
    config = load_config(
        None, [f"ablate.variants={ALL}", "segment.weight_sr_l=0.3", "segment.weight_detail=0.5"]
    )
    plain = replace(config, ablate=AblateConfig())
    zero = {"weight_sr_f": 0.0, "weight_sr_l": 0.0}
    wanted: dict[str, dict[str, Any]] = {
        "baseline": {"mea": False, **zero},
        "mea": zero,
        "mea+srf": {"weight_sr_l": 0.0},
        "mea+srl": {"weight_sr_f": 0.0},
        "mea+sr": {},
        "released": {"sr_mode": "released"},
    }
    for variant in chosen_variants(config):
        changes = wanted[variant.name]
        more: dict[str, Any] = {"weight_cls": 0.0} if variant.name == "baseline" else {}
        if variant.name not in ("mea+sr", "released"):
            more["weight_detail"] = 0.0
        assert variant.config == replace(
            plain,
            classify=replace(plain.classify, **changes),
            segment=replace(plain.segment, **changes, **more),
        )


def test_under_full_supervision_only_segment_is_changed() -> None:
    for variant in chosen_variants(load_config(None, ["segment.supervision=full"])):
        assert all(text.startswith("segment.") for text in variant.overrides)
    with pytest.raises(UserError, match=r"set ablate\.stages=\['segment'\]"):
        chosen_variants(load_config(None, ["segment.supervision=full", "ablate.stages=['classify']"]))


def test_own_variants_start_from_the_configuration_and_may_replace_a_built_in_one() -> None:
    own = 'ablate.own={"srf x10"=["segment.weight_sr_f=10"], mea=["refine.preset=psa"]}'
    config = load_config(None, [own, 'ablate.variants=["mea+sr", "srf x10", "mea"]', "cams.flip=false"])
    first, second, third = chosen_variants(config)
    assert second.config == replace(first.config, segment=replace(first.config.segment, weight_sr_f=10.0))
    assert third.config == replace(first.config, refine=replace(first.config.refine, preset="psa"))
    assert second.slug == "srf-x10"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['ablate.variants=["srf x1"]', 'ablate.own={"srf x10"=[]}'], "did you mean 'srf x10'"),
        (
            ['ablate.own={x=["data.root=x"]}'],
            r"variant 'x': data\.root=x: expected section\.key=value of one of",
        ),
        (['ablate.own={x=["seed=3"]}'], "the same for all variants"),
        (['ablate.own={x=["segment.weight_srf=3"]}'], "variant 'x': .*did you mean 'weight_sr_f'"),
        (['ablate.own={x=["segment.mea"]}'], r"segment\.mea: expected section\.key=value"),
        (['ablate.own={x=["segment.mea=7"]}'], r"variant 'x': segment\.mea = 7"),
        (
            ["segment.weight_sr_l=0", "ablate.stages=['segment']"],
            r"variant 'mea\+srl': segment\.weight_sr_l is 0",
        ),
    ],
)
def test_mistakes_in_variants_are_named_with_the_fix(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_variants(load_config(None, overrides))


def test_slugs_are_folder_names_and_differ_even_where_case_does_not_count() -> None:
    names = ["a b", "a-b", "Mea", "x" * 200, "../..", "🐈", "ä/ö"]
    own = "ablate.own={" + ", ".join(f'"{name}"=[]' for name in names) + "}"
    found = chosen_variants(load_config(None, [own, f"ablate.variants={['mea', *names]}"]))
    slugs = [item.slug for item in found]
    assert len({slug.casefold() for slug in slugs}) == len(slugs)
    assert slugs[0] == "mea"
    workspace = Workspace(Path("/nowhere"))
    for slug in slugs:
        assert len(slug) <= 40
        assert workspace.run(f"{'n' * 40}.{slug}.s{2**31 - 1}").folder.parent == workspace.root
    again = chosen_variants(load_config(None, [own, "ablate.variants=['a b']"]))
    assert again[0].slug == slugs[1]  # whatever else is chosen
