"""The configuration: a frozen dataclass per stage, plus ``data``, ``run`` and ``ablate``; TOML in and out.

Every field is followed by its documentation; its type says what is accepted, and pydantic holds values to it. Defaults
of network, views and optimiser follow published recipes (IRN for the classifier, DeepLab-v2 for the segmenter). Of
self-regulation lambdas and start are published; what the paper leaves open is our choice: temperatures and their
scaling, sr_axis, sr_maps, sr_l_activation, pool, and all that is off by default.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from wsss.errors import UserError

MAX_SEED = 2**31 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(ge=1e-3)]
Scales = Annotated[tuple[Annotated[float, Field(ge=0.05, le=8)], ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Width = Annotated[int, Field(ge=8, le=2048)]
Crop = Annotated[int, Field(ge=16, le=4096)]
Side = Annotated[int, Field(ge=32)]
ViewSide = Annotated[int, Field(ge=8, le=8192)]
Zoom = Annotated[float, Field(ge=0.1, le=8)]
Stride = Literal[8, 16, 32]
Pooling = Literal["mean", "max", "lse"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """What all sections have in common: no unknown keys, no conversion of one type to another, no nan."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The images, their tags and, where there are any, their masks."""

    source: Literal["folder", "voc", "coco", "cityscapes"] = "folder"
    """layout on disk: a folder with a CSV, the VOC devkit, COCO, or Cityscapes"""
    root: str = ""
    """folder of the data set; a relative path in a TOML file is relative to that file"""
    labels: str = "auto"
    """folder: the CSV `image,tags[,split]` (auto: labels.csv); coco: the JSON of a split (auto:
    annotations/instances_{split}.json); voc: folder of the split lists (auto: ImageSets/Segmentation); relative to
    root"""
    images: str = "auto"
    """folder of the images, relative to root; folder source: auto is images; coco: auto is {split} or images/{split}"""
    masks: str = "auto"
    """'auto' (where the layout has them), '' (none) or a folder, relative to root"""
    corrections: str = ""
    """folder of masks corrected by hand, relative to root: a PNG by an image's name with the labels of masks, 255 where
    nothing is said; training images alone. Stages refine and segment learn from them (docs/data.md)"""
    tags: str = ""
    """voc source: a CSV `image,tags,derived_from` for images without an annotation (command `tags`)"""
    classes: tuple[str, ...] = ()
    """class names in the order of the mask values 1..C; empty: classes.txt, else tags"""
    train_split: str = "train"
    """the split that is learned from"""
    val_split: str = "val"
    """the split that is only predicted and scored"""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """What training of either network is made of: network, views, optimiser, self-regulation."""

    backbone: str = "resnet50"
    """any timm model with features_only, e.g. resnet50, tf_efficientnet_lite0"""
    weights: str = "imagenet"
    """imagenet (from the hub), bundled (tf_efficientnet_lite0), none, or a .pth/.safetensors path"""
    output_stride: Stride = 16
    """stride of the deepest map: 8, 16 or 32"""
    structure: Literal["conv", "ushape"] = "conv"
    """conv: backbone and head (DeepLab-like); ushape: a decoder of as many up-convolution blocks as the backbone has,
    with skip connections (U-Net-like); then SR-F acts in the encoder and SR-L in the decoder"""
    decoder_channels: Width = 64
    """ushape: width of the decoder's blocks"""
    exits: tuple[Count, ...] = ()
    """blocks with an exit, 1 = shallowest, a decoder's counted on from the backbone's; the last always has its own
    head; empty: all"""
    exit_channels: Width = 64
    """width of an exit head after its 1x1 reduction; that of its block where this is less"""
    long_side: tuple[ViewSide, ViewSide] = (320, 640)
    """pixels of the long side, smallest and largest, drawn for each view; not used with zoom"""
    zoom: tuple[Zoom, ...] = ()
    """smallest and largest factor on an image's own size, drawn for each view, for data whose images differ in size but
    not in scale; empty: long_side"""
    crop: Crop = 512
    """side of the square training crop in pixels"""
    flip: bool = True
    """mirror half of the training views"""
    jitter: Share = 0.0
    """strength of brightness, contrast and saturation jitter"""
    epochs: Count = 5
    """passes over the training split"""
    batch: Count = 16
    """images per optimiser step, over all processes together"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW"""
    lr: Weight = 0.01
    """peak learning rate of the backbone"""
    head_lr: Weight = 10.0
    """factor on lr for the head, the exits and a decoder (the released code: 10)"""
    weight_decay: Weight = 1e-4
    """weight decay"""
    poly: Weight = 0.9
    """power of the polynomial learning rate decay"""
    lr_warmup: Share = 0.0
    """share of all steps in which lr rises linearly from 0"""
    freeze_bn: bool = True
    """keep the backbone's BatchNorm statistics and affine parameters as pretrained"""
    frozen_blocks: Annotated[int, Field(ge=0)] = 0
    """shallowest blocks whose weights stay as pretrained"""
    mea: bool = True
    """multi-exit architecture: every exit learns the tasks (off: the deepest alone)"""
    weight_exits: Weight = 1.0
    """weight of all other exits beside the network's own head, which always counts fully, in L_cls and L_seg (1:
    published; 0.4 as PSPNet's auxiliary loss)"""
    weight_cls: Weight = 0.2
    """lambda1, weight of the multi-label classification loss"""
    weight_sr_f: Weight = 1.0
    """lambda3 for SR-F, shallow teaches deep; 0 switches it off"""
    weight_sr_l: Weight = 1.0
    """lambda3 for SR-L, deep teaches shallow; 0 switches it off"""
    tau_f: Temperature = 2.0
    """temperature of SR-F (Hinton 2015)"""
    tau_l: Temperature = 2.0
    """temperature of SR-L (Hinton 2015)"""
    tau_scaling: bool = True
    """multiply both SR losses by their tau squared, so that gradients keep their size (Hinton 2015)"""
    sr_f_teacher: Literal["shallowest", "previous", "mean"] = "shallowest"
    """who teaches detail: the shallowest exit (published), each exit's shallower neighbour, or all exits' mean"""
    sr_l_teacher: Literal["deepest", "next", "mean"] = "deepest"
    """who teaches semantics: the deepest exit (published), each exit's deeper neighbour, or all exits' mean"""
    sr_axis: Literal["class", "space"] = "class"
    """SR-F distributions over classes at each position, or over positions for each tagged class"""
    sr_maps: Literal["class", "features"] = "class"
    """SR-F on class maps, or on the features that the shallowest exit classifies and projections to their width"""
    sr_mode: Literal["soft", "released"] = "soft"
    """SR-F with soft targets, or the released code's hard argmax targets"""
    sr_l_activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """SR-L on independent tags or on a distribution over classes"""
    sr_start: Share = 0.25
    """share of all steps before SR starts (published: 10,000 of 40,000)"""
    sr_ramp: Share = 0.0
    """share of all steps in which SR rises linearly to its full weight"""
    sr_bar: Share = 0.0
    """mIoU with the labels of recent batches (classify: of the tags named and given) that an exit must have reached
    before it teaches; 0: sr_start alone decides"""
    pool: Pooling = "mean"
    """how a class map becomes an image-level score"""

    def __post_init__(self) -> None:
        """Refuse combinations that no single field can see."""
        if self.long_side[0] > self.long_side[1]:
            raise ValueError(f"long_side = {list(self.long_side)}: expected [smallest, largest]")
        if self.sr_maps == "features" and self.sr_mode == "released":
            raise ValueError("sr_maps = 'features': expected sr_mode = 'soft'; released targets are classes")
        if self.zoom and (len(self.zoom) != 2 or self.zoom[0] > self.zoom[1]):
            raise ValueError(f"zoom = {list(self.zoom)}: expected [smallest, largest], or [] for long_side")
        if self.weights == "bundled" and self.backbone != "tf_efficientnet_lite0":
            raise ValueError(
                f"weights = 'bundled' belongs to backbone tf_efficientnet_lite0, not {self.backbone}; set either"
            )


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TrainConfig):
    """Stage 1: the multi-exit classification network. Defaults: IRN line (see TrainConfig)."""

    weight_cls: Weight = 1.0
    """weight of the multi-label classification loss"""


@dataclass(frozen=True, kw_only=True)
class CamsConfig(Section):
    """Stage 2: multi-scale class activation maps."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """image scales whose maps are summed"""
    flip: bool = True
    """add the maps of the mirrored image"""
    exits: tuple[Count, ...] = ()
    """blocks, 1 = shallowest, whose exits' maps are fused with the deepest's; each needs an exit in classify.exits;
    empty: the deepest alone, as published"""
    fusion: Literal["mean", "product"] = "mean"
    """how the exits' maps become one: weighted mean, or weighted geometric mean"""
    exit_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """weight of each of cams.exits in the fusion; the deepest's is 1"""
    propagate: tuple[Count, ...] = ()
    """blocks of the backbone, 1 = shallowest, by whose features CAMs are spread over cells that look alike; empty: CAMs
    as they are"""
    propagate_power: Annotated[float, Field(ge=0.1, le=16)] = 2.0
    """sharpness of the affinity, cosine to this power"""
    propagate_steps: Annotated[int, Field(ge=1, le=16)] = 1
    """how often CAMs are spread"""
    propagate_scale: Annotated[float, Field(ge=0.05, le=8)] = 1.5
    """image scale of the features that propagate and cells use"""
    cells: tuple[Count, ...] = ()
    """blocks of the backbone by whose features a linear classifier, fitted to the confident cells of all CAMs, sees
    each cell once more; its maps replace the CAMs (on the grid of the first block); empty: CAMs as they are"""
    max_side: Side = 1024
    """a larger image is reduced to this long side first, in pixels"""

    def __post_init__(self) -> None:
        """Refuse a block that is named twice."""
        if len(set(self.exits)) < len(self.exits):
            raise ValueError(f"exits = {list(self.exits)}: expected each block once")


@dataclass(frozen=True, kw_only=True)
class RefineConfig(Section):
    """Stage 3: pseudo-masks by a dense CRF or by local refinement, or those of another program."""

    method: Literal["crf", "local", "import"] = "crf"
    """crf: dense CRF on CPU cores; local: pixel-adaptive local refinement on run.device (docs/masks.md); import: the
    masks of another program"""
    masks: str = ""
    """import: their folder, a PNG by an image's name with the labels of masks, 255 where uncertain"""
    hold_to_tags: bool = False
    """import: pixels of classes that are no tag of their image become uncertain"""
    preset: Literal["irn", "psa", "deeplab", "afa", "toco", "sr"] = "irn"
    """crf: published parameters by name; local has one set"""
    iterations: Annotated[int, Field(ge=1, le=100)] = 10
    """crf: of the mean field; local: how often neighbours are averaged"""
    unary_weight: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """crf: factor on the unary energies (1: published); larger keeps more of the seed, small objects first of all"""
    threshold: Literal["fixed", "label-free"] = "fixed"
    """background as it is set, or chosen without ground truth (docs/masks.md)"""
    background: Share = 0.15
    """background score beside CAMs in [0, 1]: the threshold of the seed"""
    unsure: Share = 0.6
    """crf: a pixel whose most probable class is below this probability is uncertain (255)"""
    max_side: Side = 1024
    """decided (crf: refined) at most at this long side, in pixels"""
    local_unsure: Share = 0.0
    """local: the same; its probabilities are softer, so 0 leaves none out (docs/masks.md)"""
    local_side: Side = 160
    """local: refined at most at this long side, in pixels: small, for its reach is in pixels too"""

    def __post_init__(self) -> None:
        """Refuse masks that are to be imported from nowhere."""
        if self.method == "import" and not self.masks:
            raise ValueError("masks = '': expected the folder of the masks that method = 'import' reads")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TrainConfig):
    """Stage 4: the multi-exit segmentation network. Defaults: DeepLab-v2."""

    supervision: Literal["pseudo", "full"] = "pseudo"
    """learn from pseudo-masks, or from ground truth (the upper bound)"""
    head: Literal["aspp", "light", "v3plus", "ocr"] = "aspp"
    """DeepLab-v2 ASPP; a light one (1x1 reduction, depthwise dilated branches); v3plus: the light one with a decoder of
    low-level features at stride 4 behind it (DeepLab-v3+ like), for contours and small objects; or ocr: each pixel
    attends to the regions of a coarse segmentation"""
    head_channels: Width = 256
    """width of the light head, of v3plus before its decoder, and of ocr (published: 512)"""
    labelled_crops: Share = 0.0
    """share of training views that are laid on a labelled pixel: a class of the image's labels is drawn, then one of
    its pixels, so that small objects are seen"""
    class_weights: Literal["none", "root"] = "none"
    """weight of each label in the cross-entropy: none, or root: by the inverse square root of its share of the training
    pixels, with mean 1 over them, so that rare labels count"""
    correction_weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """how many images an image of data.corrections counts for: it is seen so often in an epoch"""
    weight_seg: Weight = 0.8
    """lambda2, weight of the pixel-wise cross-entropy"""
    loss_scales: tuple[Annotated[float, Field(ge=0.05, le=8)], ...] = ()
    """scales of the views at which the cross-entropy is taken too, and on the maximum over all (DeepLab: 0.5, 0.75)"""
    weight_sr_p: Weight = 0.0
    """weight of SR-L at every position: the head's class probabilities teach the other exits that SR-L acts on"""
    weight_detail: Weight = 0.0
    """weight of the detail loss: where shallow features have edges, the head's class probabilities should, too"""
    detail_block: Count = 2
    """block of the backbone whose features the detail loss looks at, 1 = shallowest"""
    detail_reach: Count = 2
    """distance of the neighbours it compares, in cells of that block"""
    sr_f_trust: Literal["all", "label"] = "all"
    """SR-F counts every position fully, or by the probability that its teacher gives the position's label"""
    tag_layer: bool = False
    """a linear layer between each exit's pooled class map and its image-level scores, so that the tags' loss does not
    act on the mask's own logits (the released code has one)"""
    test_scales: Scales = (1.0,)
    """image scales averaged in prediction"""
    test_flip: bool = False
    """average with the mirrored image in prediction"""
    max_side: Side = 1024
    """a larger image is reduced to this long side for prediction, in pixels"""
    backbone: str = "resnet101"
    output_stride: Stride = 8
    long_side: tuple[ViewSide, ViewSide] = (250, 750)
    crop: Crop = 321
    epochs: Count = 19
    batch: Count = 10
    lr: Weight = 2.5e-4
    weight_decay: Weight = 5e-4
    pool: Pooling = "lse"


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """Where and how it is computed. Of these keys the precision alone is part of a fingerprint."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps"""
    workers: Annotated[int, Field(ge=-1, le=512)] = -1
    """helper processes for loading and the CRF; -1: by the machine"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device computes it faster than fp32, else fp32; decided before anything is computed"""
    compile: bool = False
    """training networks with torch.compile: the first step takes a minute or more, later ones less time; where
    compiling fails, it says so and goes on without"""


@dataclass(frozen=True, kw_only=True)
class AblateConfig(Section):
    """What `ablate` compares: variants of this configuration, each with every seed. Never part of a fingerprint."""

    seeds: tuple[Seed, ...] = (0, 1, 2)
    """every variant is run with each of them"""
    variants: tuple[str, ...] = ("baseline", "mea", "mea+srf", "mea+srl", "mea+sr")
    """in order; the others are set against the first; also: released, and the names of [ablate.own]"""
    stages: tuple[Literal["classify", "segment"], ...] = ("classify", "segment")
    """the training stages that the built-in variants change"""
    own: Mapping[Annotated[str, Field(min_length=1)], tuple[str, ...]] = field(default_factory=dict)
    """own variants: name = ["section.key=value", ...], on top of this configuration (which is mea+sr as it stands); a
    built-in name replaces that variant"""

    def __post_init__(self) -> None:
        """Refuse lists that are empty or name something twice."""
        for name in ("seeds", "variants", "stages"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} = {list(values)}: expected at least one, and none of them twice")


@dataclass(frozen=True, kw_only=True)
class Config(Section):
    """The whole configuration. ``seed`` is the top-level key; everything else is in a section."""

    seed: Seed = 0
    """seed of every random choice"""
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
    tree = _anchored(_read_toml(path), path.resolve().parent) if path else {}
    return _overridden(tree, overrides, option="--set ", origin=str(path) if path else "--set")


def with_overrides(config: Config, overrides: Sequence[str], *, origin: str) -> Config:
    """A configuration with more overrides, checked as ``load_config`` does; ``origin`` names it in errors.

    Raises:
        UserError: an override that is none, unknown section or key, wrong type, value out of range.
    """
    return _overridden(to_tree(config), overrides, option=f"{origin}: ", origin=origin)


def from_tree(tree: Mapping[str, Any], *, origin: str) -> Config:
    """Check a nested mapping (as TOML gives it) and build the configuration. ``origin`` names it in errors.

    Raises:
        UserError: unknown section or key, wrong type, value out of range.
    """
    try:
        return _adapter().validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise UserError(f"{origin}: {_explained(error.errors(include_url=False)[0])}") from None


def to_toml(config: Config, *, comments: bool = False) -> str:
    """The configuration as TOML text that ``load_config`` reads back; with ``comments`` each key explained."""
    tree = to_tree(config)
    if not comments:
        return tomli_w.dumps(tree)
    lines = []
    for name, value in tree.items():
        if name not in SECTIONS:
            lines += [f"# {documentation(Config)[name]}", tomli_w.dumps({name: value})]
            continue
        lines.append(f"[{name}]  # {(SECTIONS[name].__doc__ or '').splitlines()[0]}")
        for key, item in value.items():
            lines.append(f"# {documentation(SECTIONS[name])[key]}")
            # A table, the last key of its section, is a section of its own.
            text = tomli_w.dumps({name: {key: item}} if isinstance(item, dict) else {key: item}).strip()
            lines.append(text.removeprefix(f"[{name}]\n"))
        lines.append("")
    return "\n".join(lines)


def to_tree(config: Any) -> dict[str, Any]:
    """A section or the whole configuration as plain dicts, lists and scalars (for TOML and JSON)."""
    tree: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return tree


@cache
def documentation(section: type) -> dict[str, str]:
    """What the source says below each field of a section, inherited fields included."""
    found = {}
    for part in reversed(section.__mro__[:-1]):
        declared = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(part)).body[0])
        for line, text in pairwise(declared.body):
            match line, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


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


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """What is said of a name that is not among the known ones: the closest of them, or all."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"accepted: {', '.join(sorted(known))}"
    return f"unknown {what} '{name}'; {hint}"


@cache
def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


_EXPECTED = {
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "too_short": "expected a list of at least {min_length}",
    "missing": "expected a longer list",
}
"""Instead of pydantic's own words, where these say less."""


def _explained(error: Any) -> str:
    """Key, value, what is accepted, and the documentation, for one of pydantic's errors."""
    kind, place = error["type"], [str(part) for part in error["loc"]] or [""]
    owner, where = (SECTIONS[place[0]], f"[{place[0]}]: ") if len(place) > 1 else (Config, "")
    if kind == "unexpected_keyword_argument":
        names = [f.name for f in dataclasses.fields(owner)]
        return where + unknown(place[-1], names, "key" if where else "section")
    if kind == "json_invalid":  # what JSON cannot hold: half a character, lists in hundreds of lists
        return f"a value is not usable ({error['msg']})"
    if kind == "dataclass_type":
        return f"{place[0]} is a section: write [{place[0]}] and its keys below it"
    if kind == "value_error":  # of a __post_init__
        return f"{place[0]}.{error['ctx']['error']}"
    words = _EXPECTED[kind].format(**error.get("ctx", {})) if kind in _EXPECTED else error["msg"]
    wanted = words.replace("Input should be", "expected", 1)
    doc = documentation(owner).get(place[1] if where else place[0], "")
    return f"{'.'.join(place)} = {error['input']!r:.80}: {wanted} ({doc})"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"config {path}: cannot be read ({error.strerror}); check --config") from None
    except (ValueError, RecursionError) as error:  # bad syntax, no UTF-8, beyond all bounds
        hint = "; write paths of Windows with / or in 'single quotes'" if b"\\" in path.read_bytes() else ""
        raise UserError(f"config {path}: not valid TOML: {error}{hint}") from None


def _overridden(tree: dict[str, Any], overrides: Sequence[str], *, option: str, origin: str) -> Config:
    for text in overrides:
        keys, value = parse_override(text)
        block = tree
        for key in keys[:-1]:
            block = block.setdefault(key, {})
            if not isinstance(block, dict):
                raise UserError(f"{option}{text}: {key} is a value, not a section")
        block[keys[-1]] = value
    return from_tree(_anchored(tree, Path.cwd()), origin=origin)


def _anchored(tree: dict[str, Any], base: Path) -> dict[str, Any]:
    """Make the paths of a tree absolute, relative to ``base``."""
    for section, key in (
        ("data", "root"),
        ("refine", "masks"),
        ("classify", "weights"),
        ("segment", "weights"),
    ):
        block = tree.get(section)
        value = block.get(key) if isinstance(block, dict) else None
        words = ("imagenet", "bundled", "none") if key == "weights" else ()
        if block and isinstance(value, str) and value not in ("", *words):
            if min(value) < " ":
                raise UserError(
                    f'{section}.{key} = {value[:80]!r}: holds a control character; in "double quotes" of TOML '
                    "a backslash begins one: write / or 'single quotes'"
                )
            try:
                block[key] = str((base / Path(value).expanduser()).resolve())
            except (ValueError, RuntimeError, OSError) as error:  # a NUL, no such home, a name too long
                raise UserError(f"{section}.{key} = {value[:80]!r}: not a usable path ({error})") from None
    return tree
