"""What each variant changes, as overrides of the configuration; every refusal before anything is computed."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from wsss.config import AblateConfig, Config, refuse_unknown, with_overrides
from wsss.errors import UserError

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "baseline": {"mea": "false", "weight_sr_f": "0", "weight_sr_l": "0"},
    "mea": {"mea": "true", "weight_sr_f": "0", "weight_sr_l": "0"},
    "mea+srf": {"mea": "true", "weight_sr_l": "0"},
    "mea+srl": {"mea": "true", "weight_sr_f": "0"},
    "mea+sr": {"mea": "true"},
    "released": {"mea": "true", "sr_mode": '"released"'},
}
"""Settings of each stage by variant; a weight that is not named is the configuration's own."""
NEEDED: Mapping[str, tuple[str, ...]] = {
    "mea+srf": ("weight_sr_f",),
    "mea+srl": ("weight_sr_l",),
    "mea+sr": ("weight_sr_f", "weight_sr_l"),
    "released": ("weight_sr_f", "weight_sr_l"),
}
"""Weights without which a variant would be another one."""
SECTIONS = ("classify", "cams", "refine", "segment")
"""What an own variant may change: the photographs and the seeds are the same for all."""
SLUG_LENGTH = 40


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: as the user wrote it.
        slug: the same for a folder's name.
        overrides: ``section.key=value`` on top of the configuration.
        config: the configuration with them; its seed is replaced run by run.
    """

    name: str
    slug: str
    overrides: tuple[str, ...]
    config: Config


def chosen_variants(config: Config) -> list[Variant]:
    """The variants of ``config.ablate.variants``, in order.

    Raises:
        UserError: an unknown name, an override that is none or may not be, or a variant whose weights the
            configuration sets to zero.
    """
    ablate = config.ablate
    known = {**dict.fromkeys(BUILT_IN), **ablate.own}
    refuse_unknown(ablate.variants, set(known), where="ablate.variants", what="variant")
    slugs = _slugs(list(known))
    plain = replace(config, ablate=AblateConfig())
    configured = {name: _configured(plain, name, overrides) for name, overrides in ablate.own.items()}
    variants = []
    for name in ablate.variants:
        if name in ablate.own:
            variants.append(Variant(name, slugs[name], ablate.own[name], configured[name]))
            continue
        _check_weights(name, config)
        overrides = built_in(name, trained_stages(config))
        variants.append(Variant(name, slugs[name], overrides, _configured(plain, name, overrides)))
    return variants


def built_in(name: str, stages: Sequence[str]) -> tuple[str, ...]:
    """Overrides of a built-in variant in these training stages."""
    overrides = [f"{stage}.{key}={value}" for stage in stages for key, value in BUILT_IN[name].items()]
    if name == "baseline" and "segment" in stages:
        # Plain cross-entropy on the network's own head: no tags either.
        overrides.append("segment.weight_cls=0")
    return tuple(overrides)


def trained_stages(config: Config) -> tuple[str, ...]:
    """The stages of ``ablate.stages`` that this configuration trains.

    Raises:
        UserError: there is none.
    """
    trained = ("classify", "segment") if config.segment.supervision == "pseudo" else ("segment",)
    stages = tuple(stage for stage in trained if stage in config.ablate.stages)
    if not stages:
        raise UserError(
            "ablate.stages = ['classify']: under segment.supervision = 'full' nothing but segment is trained; "
            "set ablate.stages=['segment']"
        )
    return stages


def same_settings(variants: Sequence[Variant]) -> list[str]:
    """Sentences about variants whose settings are those of an earlier one: their rows will be equal."""
    return [
        f"{other.name} and {first.name} have the same settings, so their rows will be equal"
        for position, other in enumerate(variants)
        for first in variants[:position]
        if first.config == other.config
    ]


def _configured(config: Config, name: str, overrides: Sequence[str]) -> Config:
    origin = f"variant '{name}'"
    for text in overrides:
        if text.split(".")[0].strip() not in SECTIONS:
            raise UserError(
                f"{origin}: {text}: expected section.key=value of one of the sections {', '.join(SECTIONS)}; "
                "photographs, seeds and machine are the same for all variants"
            )
    try:
        return with_overrides(config, overrides, origin=origin)
    except UserError as error:
        text = str(error).removeprefix("--set ")
        raise UserError(text if text.startswith(origin) else f"{origin}: {text}") from None


def _check_weights(name: str, config: Config) -> None:
    """Refuse a built-in variant that the configuration's weights make another one."""
    stages = trained_stages(config)
    for key in NEEDED.get(name, ()):
        if not any(getattr(getattr(config, stage), key) > 0 for stage in stages):
            keys = " and ".join(f"{stage}.{key}" for stage in stages)
            raise UserError(
                f"variant '{name}': {keys} {'are' if len(stages) > 1 else 'is'} 0, so there would be nothing to see; "
                f"add --set {stages[-1]}.{key}=1 (or another weight), or leave the variant out with --variants"
            )


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """A folder name's part per variant; what is long, empty or like another (case aside) gets a short hash."""
    plain = {name: re.sub(r"[^\w+-]+", "-", name).strip("-") for name in names}
    folded = [slug.casefold() for slug in plain.values()]
    slugs = {}
    for name, slug in plain.items():
        clash = name not in BUILT_IN and folded.count(slug.casefold()) > 1
        if clash or not slug or len(slug) > SLUG_LENGTH:
            digest = hashlib.sha256(name.encode()).hexdigest()[:6]
            slug = f"{slug[: SLUG_LENGTH - 7]}-{digest}".lstrip("-")
        slugs[name] = slug
    return slugs
