"""Variants of an ablation: what each changes, and what is refused before anything is computed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.commands.ablate.variants import BUILT_IN, built_in, chosen_variants, same_settings
from stages.workspace import Workspace
from wsss.config import AblateConfig, load_config, to_toml
from wsss.errors import UserError

ALL = list(BUILT_IN)


def test_variants_differ_from_the_configuration_in_their_own_keys_only() -> None:
    config = load_config(None, [f"ablate.variants={ALL}", "segment.weight_sr_l=0.3"])
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
        assert variant.config == replace(
            plain,
            classify=replace(plain.classify, **changes),
            segment=replace(plain.segment, **changes, **more),
        )


@pytest.mark.parametrize("stage", ["classify", "segment"])
def test_the_built_in_variants_change_the_stages_that_are_asked_for(stage: str) -> None:
    for variant in chosen_variants(
        load_config(None, [f"ablate.variants={ALL}", f"ablate.stages=['{stage}']"])
    ):
        assert variant.overrides
        assert all(text.startswith(f"{stage}.") for text in variant.overrides)


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


def test_equal_settings_are_said() -> None:
    own = 'ablate.own={same=["segment.mea=true"]}'
    found = chosen_variants(load_config(None, [own, 'ablate.variants=["mea+sr", "same"]']))
    assert same_settings(found) == ["same and mea+sr have the same settings, so their rows will be equal"]
    assert built_in("mea+sr", ("segment",)) == ("segment.mea=true",)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['ablate.variants=["basline"]'], "unknown variant 'basline'; did you mean 'baseline'"),
        (['ablate.variants=["srf x1"]', 'ablate.own={"srf x10"=[]}'], "did you mean 'srf x10'"),
        (
            ['ablate.own={x=["data.root=x"]}'],
            r"variant 'x': data\.root=x: expected section\.key=value of one of",
        ),
        (['ablate.own={x=["seed=3"]}'], "the same for all variants"),
        (['ablate.own={x=["segment.weight_srf=3"]}'], "variant 'x': .*did you mean 'weight_sr_f'"),
        (['ablate.own={x=["segment.mea"]}'], r"variant 'x': segment\.mea: expected section\.key=value"),
        (['ablate.own={x=["segment.mea=7"]}'], r"variant 'x': segment\.mea = 7: expected true or false"),
        (
            ["classify.weight_sr_f=0", "segment.weight_sr_f=0"],
            r"variant 'mea\+srf': classify\.weight_sr_f and segment\.weight_sr_f are 0.*--set segment\.weight_sr_f=1",
        ),
        (
            ["segment.weight_sr_l=0", "ablate.stages=['segment']"],
            r"variant 'mea\+srl': segment\.weight_sr_l is 0",
        ),
    ],
)
def test_mistakes_are_named_with_the_fix(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_variants(load_config(None, overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ablate.seeds=[0, 0]", "none of them twice"),
        ("ablate.seeds=[]", "at least one"),
        ("ablate.seeds=[-1]", "between 0 and 2147483647|2.14748e"),
        ("ablate.variants=[]", "at least one"),
        ("ablate.stages=['cams']", "one of 'classify', 'segment'"),
        ("ablate.own=['a']", "a table of names"),
        ("ablate.own={a='segment.mea=false'}", "a list"),
        ("ablate.own={''=[]}", "a table of names"),
        ("ablate.sedes=[1]", "did you mean 'seeds'"),
    ],
)
def test_the_section_is_checked_when_it_is_read(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, [override])


@pytest.mark.parametrize("comments", [True, False])
def test_the_section_survives_toml(tmp_path: Path, comments: bool) -> None:
    own = 'ablate.own={"srf x10 ü"=["segment.weight_sr_f=10", "cams.flip=false"], empty=[]}'
    config = load_config(None, [own, "ablate.seeds=[7]", 'ablate.stages=["segment"]'])
    file = tmp_path / "c.toml"
    file.write_text(to_toml(config, comments=comments), encoding="utf-8")
    assert load_config(file) == config


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
