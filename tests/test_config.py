"""Configuration: precedence, round trip, and a refusal for everything that is wrong."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from wsss.config import SECTIONS, Config, documentation, load_config, parse_override, to_toml, to_tree
from wsss.errors import UserError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_default_then_file_then_override(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", 'seed = 5\n[refine]\npreset = "psa"\niterations = 7\n')
    config = load_config(file, ["refine.iterations=3", "seed=6"])
    assert config.seed == 6
    assert config.refine.preset == "psa"
    assert config.refine.iterations == 3
    assert config.refine.background == 0.15
    assert load_config() == Config()


@pytest.mark.parametrize("comments", [True, False])
def test_toml_round_trip(tmp_path: Path, comments: bool) -> None:
    config = load_config(None, ["cams.scales=[1, 0.5]", "data.root=a b", 'data.classes=["ü", "b"]', "seed=3"])
    file = write(tmp_path / "c.toml", to_toml(config, comments=comments))
    assert load_config(file) == config


def test_every_key_is_documented() -> None:
    text = to_toml(Config(), comments=True)
    for name, section in SECTIONS.items():
        for field in fields(section):
            assert len(documentation(section)[field.name]) > 10, f"{name}.{field.name}"
            assert documentation(section)[field.name] in text


def test_paths_in_a_file_are_relative_to_it_and_in_an_override_to_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    file = write(folder / "c.toml", '[data]\nroot = "../photos"\n[classify]\nweights = "w.pth"\n')
    config = load_config(file)
    assert config.data.root == str(tmp_path / "photos")
    assert config.classify.weights == str(folder / "w.pth")
    assert config.segment.weights == "imagenet"
    monkeypatch.chdir(tmp_path)
    assert load_config(file, ["data.root=here"]).data.root == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.b=1", (["a", "b"], 1)),
        ("a.b=1.5", (["a", "b"], 1.5)),
        ("a.b=true", (["a", "b"], True)),
        ('a.b="x y"', (["a", "b"], "x y")),
        ("a.b=x y", (["a", "b"], "x y")),
        ("a.b=/p/q=r", (["a", "b"], "/p/q=r")),
        ("a.b=[1, 2]", (["a", "b"], [1, 2])),
        ("seed=4", (["seed"], 4)),
    ],
)
def test_override_values_are_toml_or_text(text: str, wanted: object) -> None:
    assert parse_override(text) == wanted


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("refine.prset=psa", ["[refine]", "unknown key 'prset'", "did you mean 'preset'"]),
        ("refin.preset=psa", ["unknown section 'refin'", "did you mean 'refine'"]),
        ("zzz.a=1", ["unknown section 'zzz'", "accepted: ", "classify"]),
        ("refine.preset=best", ["refine.preset = 'best'", "'irn'", "'sr'"]),
        ("refine.iterations=many", ["refine.iterations = 'many'", "a whole number"]),
        ("refine.iterations=2.5", ["refine.iterations = 2.5", "a whole number"]),
        ("refine.iterations=true", ["refine.iterations = True", "a whole number"]),
        ("classify.flip=1", ["classify.flip = 1", "true or false"]),
        ("classify.lr=-1", ["classify.lr = -1", "at least 0"]),
        ("classify.lr=nan", ["classify.lr = nan", "a finite number"]),
        ("refine.background=1.5", ["refine.background = 1.5", "at most 1", "background score beside CAMs"]),
        ("cams.scales=1.0", ["cams.scales = 1.0", "array"]),
        ("cams.scales=[]", ["cams.scales = []", "at least 1"]),
        ("cams.scales=[1, 100]", ["cams.scales.1 = 100", "at most 8"]),
        ("cams.exits=[3, 4, 3]", ["cams.exits = [3, 4, 3]", "each block once"]),
        ("cams.exits=[0]", ["cams.exits.0 = 0", "at least 1"]),
        ("cams.fusion=sum", ["cams.fusion = 'sum'", "'mean' or 'product'"]),
        ("classify.long_side=[8]", ["classify.long_side.1 = [8]", "a longer list"]),
        ("classify.long_side=[400, 300]", ["classify.long_side", "[smallest, largest]"]),
        ("classify.output_stride=12", ["classify.output_stride = 12", "8, 16 or 32"]),
        ("classify.weights=bundled", ["'bundled'", "tf_efficientnet_lite0", "resnet50"]),
        ("seed=-1", ["seed = -1", "at least 0"]),
        ("refine=3", ["refine is a section"]),
        ("seed.x=1", ["seed"]),
        ("data.classes=[1]", ["data.classes.0 = 1", "a valid string"]),
        ("ablate.own={a=3}", ["ablate.own.a = 3"]),
        ("ablate.seeds=[1, 1]", ["ablate.seeds = [1, 1]", "none of them twice"]),
        ("data.root=" + "[" * 300 + "]" * 300, ["not usable"]),
        ("data.root=\udcff", ["not usable"]),
        ("nonsense", ["--set nonsense", "section.key=value"]),
        ("a.b.c=1", ["--set a.b.c=1", "section.key=value"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_accepted(override: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, [override])
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.toml: cannot be read"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(UserError, match=r"bad\.toml: not valid TOML.*line 2"):
        load_config(write(tmp_path / "bad.toml", "a = 1\nb = = 2\n"))
    with pytest.raises(UserError, match=r"key\.toml.*\[cams\].*unknown key 'scale'"):
        load_config(write(tmp_path / "key.toml", "[cams]\nscale = [1.0]\n"))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "seed = " + "9" * 5000,
        '[data]\nroot = "a\\u0000b"\n',
        "[data]\nroot = 2020-01-01T",
    ],
)
def test_toml_beyond_all_bounds_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        load_config(write(tmp_path / "c.toml", text))


@pytest.mark.parametrize("path", [r"C:\Users\me", r"C:\data\temp"])
def test_paths_of_windows_are_explained(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match=r"or (in )?'single quotes'"):
        load_config(write(tmp_path / "c.toml", f'[data]\nroot = "{path}"\n'))
    assert load_config(write(tmp_path / "c.toml", f"[data]\nroot = '{path}'\n")).data.root.endswith(path)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes("\ufeffseed = 4\n".encode())
    assert load_config(tmp_path / "c.toml").seed == 4


def test_sections_are_frozen_and_each_configuration_has_its_own_tables() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().seed = 1  # type: ignore[misc]
    assert Config().ablate.own is not Config().ablate.own


def test_the_tree_is_plain() -> None:
    tree = to_tree(Config())
    assert tree["cams"]["scales"] == [1.0, 0.5, 1.5, 2.0]
    assert set(tree) == {"seed", *SECTIONS}
