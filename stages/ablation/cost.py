"""What each variant costs: parameters of the segmentation network as deployed, and of its exits."""

from collections.abc import Mapping
from dataclasses import replace

from stages.fitting import training_network
from wsss.config import Config


def variant_costs(configs: Mapping[str, Config], classes: int) -> dict[str, dict[str, float]]:
    """Costs by variant, then by key: ``parameters`` and ``exit_parameters``."""
    return {name: _parameters(config, classes) for name, config in configs.items()}


def _parameters(config: Config, classes: int) -> dict[str, float]:
    network = training_network(replace(config.segment, weights="none"), classes, "segment")
    deployed = sum(parameter.numel() for parameter in network.plain.parameters())
    everything = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": float(deployed), "exit_parameters": float(everything - deployed)}
