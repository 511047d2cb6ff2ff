"""Configuration: dataclass default < TOML file < ``--set section.key=value``.

Whatever is unknown, of the wrong type or out of range is refused by name, with what is accepted.
"""

from wsss.config.reading import (
    from_tree,
    load_config,
    parse_override,
    refuse_unknown,
    to_toml,
    to_tree,
    with_overrides,
)
from wsss.config.sections import (
    SECTIONS,
    AblateConfig,
    CamsConfig,
    ClassifyConfig,
    Config,
    DataConfig,
    RefineConfig,
    RunConfig,
    SegmentConfig,
    TrainConfig,
)

__all__ = [
    "SECTIONS",
    "AblateConfig",
    "CamsConfig",
    "ClassifyConfig",
    "Config",
    "DataConfig",
    "RefineConfig",
    "RunConfig",
    "SegmentConfig",
    "TrainConfig",
    "from_tree",
    "load_config",
    "parse_override",
    "refuse_unknown",
    "to_toml",
    "to_tree",
    "with_overrides",
]
