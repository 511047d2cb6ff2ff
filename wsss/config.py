"""The sections of the configuration: one frozen dataclass per stage, plus ``data`` and ``run``.

Every field carries its documentation, its accepted range and its source; defaults are the published ones
(IRN line for the classifier, DeepLab-v2 for the segmenter).

Reading and writing the configuration: TOML, overrides, and the refusal of everything that is wrong.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from wsss.errors import UserError

MAX_SEED = 2**31 - 1


def option(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    length: int | None = None,
) -> Any:
    """Declare a field: its default, its documentation, its inclusive range and (tuples) its length."""
    metadata = {"doc": doc, "low": low, "high": high, "length": length}
    if isinstance(default, dict):  # each configuration has its own copy
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The photographs, their tags and, where there are any, their masks."""

    source: Literal["folder", "voc", "coco", "cityscapes"] = option(
        "folder", "layout on disk: a folder with a CSV, the VOC devkit, COCO, or Cityscapes"
    )
    root: str = option("", "folder of the data set; a relative path in a TOML file is relative to that file")
    labels: str = option(
        "auto",
        "folder: the CSV `image,tags[,split]` (auto: labels.csv); coco: the JSON of a split "
        "(auto: annotations/instances_{split}.json); relative to root",
    )
    images: str = option(
        "auto",
        "folder of the photographs, relative to root; folder source: auto is images; coco: auto is {split} or "
        "images/{split}",
    )
    masks: str = option("auto", "'auto' (where the layout has them), '' (none) or a folder, relative to root")
    tags: str = option(
        "", "voc source: a CSV `image,tags,derived_from` for images without an annotation (command `tags`)"
    )
    classes: tuple[str, ...] = option(
        (), "class names in the order of the mask values 1..C; empty: classes.txt, else tags"
    )
    train_split: str = option("train", "the split that is learned from")
    val_split: str = option("val", "the split that is only predicted and scored")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What training of either network is made of: network, pictures, optimiser, self-regulation."""

    backbone: str = option(
        "resnet50", "any timm model with features_only, e.g. resnet50, tf_efficientnet_lite0"
    )
    weights: str = option(
        "imagenet",
        "imagenet (from the hub), bundled (tf_efficientnet_lite0), none, or a .pth/.safetensors path",
    )
    output_stride: int = option(16, "stride of the deepest map: 8, 16 or 32", low=8, high=32)
    structure: Literal["conv", "ushape"] = option(
        "conv",
        "conv: backbone and head (DeepLab-like); ushape: a decoder of as many up-convolution blocks as the backbone "
        "has, with skip connections (U-Net-like); then SR-F acts in the encoder and SR-L in the decoder",
    )
    decoder_channels: int = option(64, "ushape: width of the decoder's blocks", low=8, high=2048)
    exits: tuple[int, ...] = option(
        (),
        "blocks with an exit, 1 = shallowest, a decoder's counted on from the backbone's; the last always has its "
        "own head; empty: all",
        low=1,
    )
    exit_channels: int = option(
        64,
        "width of an exit head after its 1x1 reduction; that of its block where this is less",
        low=8,
        high=1024,
    )

    long_side: tuple[int, int] = option(
        (320, 640), "pixels of the long side, drawn anew for each view", low=8, high=8192, length=2
    )
    crop: int = option(512, "side of the square training crop in pixels", low=16, high=4096)
    flip: bool = option(True, "mirror half of the training views")
    jitter: float = option(0.0, "strength of brightness, contrast and saturation jitter", low=0, high=1)

    epochs: int = option(5, "passes over the training split", low=1)
    batch: int = option(16, "images per optimiser step, over all processes together", low=1)
    optimizer: Literal["sgd", "adamw"] = option("sgd", "SGD with momentum 0.9, or AdamW")
    lr: float = option(0.01, "peak learning rate of the backbone", low=0)
    head_lr: float = option(10.0, "factor on lr for the heads and exits", low=0)
    weight_decay: float = option(1e-4, "weight decay", low=0)
    poly: float = option(0.9, "power of the polynomial learning rate decay", low=0)
    lr_warmup: float = option(0.0, "share of all steps in which lr rises linearly from 0", low=0, high=1)
    freeze_bn: bool = option(
        True, "keep the backbone's BatchNorm statistics and affine parameters as pretrained"
    )

    frozen_blocks: int = option(0, "shallowest blocks whose weights stay as pretrained", low=0)

    mea: bool = option(True, "multi-exit architecture: every exit learns the tasks (off: the deepest alone)")
    weight_exits: float = option(
        1.0,
        "weight of every other exit beside the network's own head in L_cls and L_seg (1: published)",
        low=0,
    )
    weight_cls: float = option(0.2, "lambda1, weight of the multi-label classification loss", low=0)
    weight_sr_f: float = option(1.0, "lambda3 for SR-F, shallow teaches deep; 0 switches it off", low=0)
    weight_sr_l: float = option(1.0, "lambda3 for SR-L, deep teaches shallow; 0 switches it off", low=0)
    tau_f: float = option(2.0, "temperature of SR-F (Hinton 2015)", low=1e-3)
    tau_l: float = option(2.0, "temperature of SR-L (Hinton 2015)", low=1e-3)
    tau_scaling: bool = option(
        True, "multiply both SR losses by their tau squared, so that gradients keep their size (Hinton 2015)"
    )
    sr_f_teacher: Literal["shallowest", "previous", "mean"] = option(
        "shallowest",
        "who teaches detail: the shallowest exit (published), each exit's shallower neighbour, or all exits' mean",
    )
    sr_l_teacher: Literal["deepest", "next", "mean"] = option(
        "deepest",
        "who teaches semantics: the deepest exit (published), each exit's deeper neighbour, or all exits' mean",
    )
    sr_axis: Literal["space", "class"] = option(
        "space", "SR-F distributions over positions (per tagged class) or over classes"
    )
    sr_maps: Literal["class", "features"] = option(
        "class", "SR-F on class maps or on 1x1-projected feature maps"
    )
    sr_mode: Literal["soft", "released"] = option(
        "soft", "SR-F with soft targets, or the released code's hard argmax targets"
    )
    sr_l_activation: Literal["sigmoid", "softmax"] = option(
        "sigmoid", "SR-L on independent tags or on a distribution over classes"
    )
    sr_start: float = option(
        0.25, "share of all steps before SR starts (published: 10,000 of 40,000)", low=0, high=1
    )
    sr_ramp: float = option(
        0.0, "share of all steps in which SR rises linearly to its full weight", low=0, high=1
    )
    pool: Literal["mean", "max", "lse"] = option("mean", "how a class map becomes an image-level score")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TrainConfig):
    """Stage 1: the multi-exit classification network. Defaults: IRN line (see TrainConfig)."""

    weight_cls: float = option(1.0, "weight of the multi-label classification loss", low=0)


@dataclass(frozen=True, kw_only=True)
class CamsConfig:
    """Stage 2: multi-scale class activation maps."""

    scales: tuple[float, ...] = option(
        (1.0, 0.5, 1.5, 2.0), "image scales whose maps are summed", low=0.05, high=8
    )
    flip: bool = option(True, "add the maps of the mirrored image")
    exits: tuple[int, ...] = option(
        (),
        "blocks, 1 = shallowest, whose exits' maps are fused with the deepest's; each needs an exit in classify.exits; "
        "empty: the deepest alone, as published",
        low=1,
    )
    fusion: Literal["mean", "product"] = option(
        "mean", "how the exits' maps become one: weighted mean, or weighted geometric mean"
    )
    exit_weight: float = option(
        1.0, "weight of each of cams.exits in the fusion; the deepest's is 1", low=0, high=1000
    )
    max_side: int = option(1024, "a larger photograph is reduced to this long side first, in pixels", low=32)


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """Stage 3: pseudo-masks by a dense CRF or by local refinement."""

    method: Literal["crf", "local"] = option(
        "crf",
        "crf: dense CRF on CPU cores; local: pixel-adaptive local refinement on run.device (docs/refiners.md)",
    )
    preset: Literal["irn", "psa", "deeplab", "afa", "toco", "sr"] = option(
        "irn", "crf: published parameters by name; local has one set"
    )
    iterations: int = option(
        10, "crf: of the mean field; local: how often neighbours are averaged", low=1, high=100
    )
    threshold: Literal["fixed", "label-free"] = option(
        "fixed", "background as it is set, or chosen without ground truth (docs/indicators.md)"
    )
    background: float = option(
        0.15, "background score beside CAMs in [0, 1]: the threshold of the seed", low=0, high=1
    )
    unsure: float = option(
        0.6, "crf: a pixel whose most probable class is below this probability becomes 255", low=0, high=1
    )
    max_side: int = option(1024, "decided (crf: refined) at most at this long side, in pixels", low=32)
    local_unsure: float = option(
        0.0,
        "local: the same; its probabilities are softer, so 0 leaves none out (docs/refiners.md)",
        low=0,
        high=1,
    )
    local_side: int = option(
        160,
        "local: refined at most at this long side, in pixels: small, for its reach is in pixels too",
        low=32,
    )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TrainConfig):
    """Stage 4: the multi-exit segmentation network. Defaults: DeepLab-v2."""

    supervision: Literal["pseudo", "full"] = option(
        "pseudo", "learn from pseudo-masks, or from ground truth (the upper bound)"
    )
    head: Literal["aspp", "light"] = option(
        "aspp", "DeepLab-v2 ASPP, or a light one (1x1 reduction, depthwise dilated branches)"
    )
    head_channels: int = option(256, "width of the light head", low=8, high=2048)
    backbone: str = option("resnet101", "any timm model with features_only")
    output_stride: int = option(8, "stride of the deepest map: 8, 16 or 32", low=8, high=32)
    long_side: tuple[int, int] = option(
        (250, 750), "pixels of the long side, drawn anew for each view", low=8, high=8192, length=2
    )
    crop: int = option(321, "side of the square training crop in pixels", low=16, high=4096)
    epochs: int = option(19, "passes over the training split", low=1)
    batch: int = option(10, "images per optimiser step, over all processes together", low=1)
    lr: float = option(2.5e-4, "peak learning rate of the backbone", low=0)
    weight_decay: float = option(5e-4, "weight decay", low=0)
    weight_seg: float = option(0.8, "lambda2, weight of the pixel-wise cross-entropy", low=0)
    pool: Literal["mean", "max", "lse"] = option("lse", "how a class map becomes an image-level score")
    test_scales: tuple[float, ...] = option((1.0,), "image scales averaged in prediction", low=0.05, high=8)
    test_flip: bool = option(False, "average with the mirrored image in prediction")
    max_side: int = option(
        1024, "a larger photograph is reduced to this long side for prediction, in pixels", low=32
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how it is computed. Never part of a fingerprint."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    workers: int = option(
        -1, "helper processes for loading and the CRF; -1: by the machine", low=-1, high=512
    )
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto",
        "auto: bf16 where the device computes it quicker than fp32; on a CPU where it does not, stage cams computes "
        "convolutions in 8-bit integers if that is quick and changes little",
    )
    compile: bool = option(
        False,
        "training networks with torch.compile: the first step takes a minute or more, later ones less time; where "
        "compiling fails, it says so and goes on without",
    )


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """What `ablate` compares: variants of this configuration, each with every seed. Never part of a fingerprint."""

    seeds: tuple[int, ...] = option((0, 1, 2), "every variant is run with each of them", low=0, high=MAX_SEED)
    variants: tuple[str, ...] = option(
        ("baseline", "mea", "mea+srf", "mea+srl", "mea+sr"),
        "in order; the others are set against the first; also: released, and the names of [ablate.own]",
    )
    stages: tuple[Literal["classify", "segment"], ...] = option(
        ("classify", "segment"), "the training stages that the built-in variants change"
    )
    own: Mapping[str, tuple[str, ...]] = option(
        {},
        'own variants: name = ["section.key=value", ...], on top of this configuration (which is mea+sr as it '
        "stands); a built-in name replaces that variant",
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration. ``seed`` is the top-level key; everything else is in a section."""

    seed: int = option(0, "seed of every random choice", low=0, high=MAX_SEED)
    data: DataConfig = field(default_factory=DataConfig)
    classify: ClassifyConfig = field(default_factory=ClassifyConfig)
    cams: CamsConfig = field(default_factory=CamsConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    run: RunConfig = field(default_factory=RunConfig)
    ablate: AblateConfig = field(default_factory=AblateConfig)


SECTIONS: Mapping[str, type] = {
    f.name: typing.cast(type, f.default_factory)
    for f in dataclasses.fields(Config)
    if f.default_factory is not dataclasses.MISSING
}


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
