"""Reading and writing the configuration: TOML, overrides, and the refusal of everything that is wrong."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w

from wsss.config.sections import SECTIONS, Config, TrainConfig
from wsss.errors import UserError


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Build the configuration from an optional TOML file and ``section.key=value`` overrides.

    Relative paths of ``data.root`` and of ``*.weights`` files in a TOML file are relative to that file; in
    an override they are relative to the working directory. All paths come out absolute.

    Raises:
        UserError: unreadable or malformed TOML, unknown section or key, wrong type, value out of range.
    """
    tree: dict[str, Any] = _anchored(_read_toml(path), path.resolve().parent) if path else {}
    for text in overrides:
        keys, value = parse_override(text)
        _insert(tree, keys, value, origin=f"--set {text}")
    return from_tree(_anchored(tree, Path.cwd()), origin=str(path) if path else "--set")


def with_overrides(config: Config, overrides: Sequence[str], *, origin: str) -> Config:
    """A configuration with more overrides, checked as ``load_config`` does; ``origin`` names it in errors.

    Raises:
        UserError: an override that is none, unknown section or key, wrong type, value out of range.
    """
    tree = to_tree(config)
    for text in overrides:
        keys, value = parse_override(text)
        _insert(tree, keys, value, origin=f"{origin}: {text}")
    return from_tree(_anchored(tree, Path.cwd()), origin=origin)


def from_tree(tree: Mapping[str, Any], *, origin: str) -> Config:
    """Check a nested mapping (as TOML gives it) and build the configuration. ``origin`` names it in errors."""
    known = {f.name for f in dataclasses.fields(Config)}
    refuse_unknown(tree, known, where=origin, what="section")
    sections = {name: _section(cls, tree.get(name, {}), name, origin) for name, cls in SECTIONS.items()}
    seed = _value(Config, "seed", tree["seed"], "seed", origin) if "seed" in tree else 0
    config = Config(seed=seed, **sections)
    _check_relations(config, origin)
    return config


def to_toml(config: Config, *, comments: bool = False) -> str:
    """The configuration as TOML text that ``load_config`` reads back; with ``comments`` each key explained."""
    if not comments:
        return tomli_w.dumps(to_tree(config))
    lines = [_commented(config, "seed"), ""]
    for name in SECTIONS:
        section = getattr(config, name)
        lines.append(f"[{name}]  # {(type(section).__doc__ or '').splitlines()[0]}")
        lines += [_commented(section, f.name, name) for f in dataclasses.fields(section)]
        lines.append("")
    return "\n".join(lines)


def to_tree(config: Any) -> dict[str, Any]:
    """A section or the whole configuration as plain dicts, lists and scalars (for TOML and JSON)."""
    tree: dict[str, Any] = dataclasses.asdict(config)
    return {key: _plain(value) for key, value in tree.items()}


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split ``section.key=value``. The value is read as TOML; what is no TOML value is taken as a string."""
    name, equals, raw = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys) or len(keys) > 2:
        raise UserError(
            f"--set {text}: expected section.key=value, e.g. --set refine.preset=psa or --set cams.scales=[1,0.5]"
        )
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):
        value = raw.strip()
    return keys, value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"config {path}: cannot be read ({error.strerror}); check the path given to --config"
        ) from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # of bad syntax, no UTF-8, numbers or nesting beyond all bounds
        raise UserError(f"config {path}: not valid TOML: {error}") from None


def _anchored(tree: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make the paths of a tree absolute, relative to ``base``."""
    anchored = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for section, key in (("data", "root"), ("classify", "weights"), ("segment", "weights")):
        block = anchored.get(section)
        value = block.get(key) if isinstance(block, dict) else None
        if isinstance(block, dict) and isinstance(value, str) and _is_path(key, value):
            block[key] = _absolute(base, value, f"{section}.{key}")
    return anchored


def _absolute(base: Path, value: str, name: str) -> str:
    try:
        return str((base / Path(value).expanduser()).resolve())
    except (
        ValueError,
        RuntimeError,
        OSError,
    ) as error:  # a NUL, a home of nobody, a name too long, a loop of links
        raise UserError(f"{name} = {value[:80]!r}: not a usable path ({error})") from None


def _is_path(key: str, value: str) -> bool:
    return bool(value) and (key == "root" or value not in ("imagenet", "bundled", "none"))


def _insert(tree: dict[str, Any], keys: Sequence[str], value: Any, *, origin: str) -> None:
    block = tree
    for key in keys[:-1]:
        block = block.setdefault(key, {})
        if not isinstance(block, dict):
            raise UserError(f"{origin}: {key} is a value, not a section")
    block[keys[-1]] = value


def _section(cls: type, block: Any, name: str, origin: str) -> Any:
    if not isinstance(block, Mapping):
        raise UserError(f"{origin}: {name} is a section: write [{name}] and its keys below it")
    known = {f.name for f in dataclasses.fields(cls)}
    refuse_unknown(block, known, where=f"{origin}: [{name}]", what="key")
    return cls(**{key: _value(cls, key, value, f"{name}.{key}", origin) for key, value in block.items()})


def refuse_unknown(block: Iterable[str], known: set[str], *, where: str, what: str) -> None:
    """Refuse names that are not known, with the closest known one, or all. Raises UserError."""
    for key in block:
        if key not in known:
            close = difflib.get_close_matches(key, sorted(known), n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"accepted: {', '.join(sorted(known))}"
            raise UserError(f"{where}: unknown {what} '{key}'; {hint}")


def _value(cls: type, key: str, value: Any, name: str, origin: str) -> Any:
    """One checked value: converted to its declared type, inside its range."""
    declared = typing.get_type_hints(cls)[key]
    spec = next(f for f in dataclasses.fields(cls) if f.name == key).metadata
    try:
        converted = _convert(value, declared)
        _check_range(converted, spec)
    except ValueError as error:
        raise UserError(f"{origin}: {name} = {value!r}: expected {error} ({spec['doc']})") from None
    return converted


def _convert(value: Any, declared: Any) -> Any:
    origin = typing.get_origin(declared)
    if origin is Literal:
        if value not in typing.get_args(declared):
            raise ValueError("one of " + ", ".join(map(repr, typing.get_args(declared))))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError("a list such as [1, 2]")
        return tuple(_convert(item, typing.get_args(declared)[0]) for item in value)
    if origin is Mapping:
        if not isinstance(value, Mapping) or "" in value:
            raise ValueError("a table of names, each with its list")
        return {name: _convert(item, typing.get_args(declared)[1]) for name, item in value.items()}
    if declared is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not declared:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
        raise ValueError(names[declared])
    return value


def _check_range(value: Any, spec: types.MappingProxyType[Any, Any]) -> None:
    low, high, length = spec["low"], spec["high"], spec["length"]
    if length is not None and len(value) != length:
        raise ValueError(f"a list of {length}")
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, float) and item != item:
            raise ValueError("a number, not nan")
        if (low is not None and item < low) or (high is not None and item > high):
            raise ValueError(_range_text(low, high))


def _range_text(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def _check_relations(config: Config, origin: str) -> None:
    """Refuse combinations that no single field can see."""
    for name in ("classify", "segment"):
        section: TrainConfig = getattr(config, name)
        if section.output_stride not in (8, 16, 32):
            raise UserError(f"{origin}: {name}.output_stride = {section.output_stride}: expected 8, 16 or 32")
        if section.long_side[0] > section.long_side[1]:
            raise UserError(
                f"{origin}: {name}.long_side = {list(section.long_side)}: expected [smallest, largest]"
            )
        if section.weights == "bundled" and section.backbone != "tf_efficientnet_lite0":
            raise UserError(
                f"{origin}: {name}.weights = 'bundled' belongs to backbone tf_efficientnet_lite0, not "
                f"{section.backbone}; set {name}.backbone=tf_efficientnet_lite0 or another {name}.weights"
            )
    for name, scales in (
        ("cams.scales", config.cams.scales),
        ("segment.test_scales", config.segment.test_scales),
    ):
        if not scales:
            raise UserError(f"{origin}: {name} is empty: expected at least one scale, e.g. [1.0]")
    for name in ("seeds", "variants", "stages"):
        values = getattr(config.ablate, name)
        if not values or len(set(values)) < len(values):
            raise UserError(
                f"{origin}: ablate.{name} = {list(values)}: expected at least one, and none of them twice"
            )
    if len(set(config.cams.exits)) < len(config.cams.exits):
        raise UserError(f"{origin}: cams.exits = {list(config.cams.exits)}: expected each block once")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _commented(section: Any, key: str, name: str = "") -> str:
    """A key below its explanation; a table (the last key of its section) as a section of its own."""
    doc = next(f for f in dataclasses.fields(section) if f.name == key).metadata["doc"]
    value = _plain(getattr(section, key))
    if isinstance(value, dict):
        return f"# {doc}\n[{name}.{key}]\n{tomli_w.dumps(value)}".strip()
    return f"# {doc}\n{tomli_w.dumps({key: value}).strip()}"
