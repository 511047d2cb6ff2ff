"""What each variant costs: parameters of the segmentation network as deployed, and of its exits."""

from collections.abc import Mapping

from wsss.backbones import create_backbone
from wsss.config import Config
from wsss.networks import MultiExitNetwork, segmentation_network


def variant_costs(configs: Mapping[str, Config], classes: int) -> dict[str, dict[str, float]]:
    """Costs by variant, then by key: ``parameters`` and ``exit_parameters``."""
    return {name: _parameters(config, classes) for name, config in configs.items()}


def _parameters(config: Config, classes: int) -> dict[str, float]:
    section = config.segment
    backbone = create_backbone(section.backbone, weights="none", output_stride=section.output_stride)
    plain = segmentation_network(
        backbone, classes=classes, head=section.head, head_channels=section.head_channels
    )
    deployed = sum(parameter.numel() for parameter in plain.parameters())
    network = MultiExitNetwork(
        plain, classes=classes + 1, exits=section.exits, width=section.exit_channels, project=0
    )
    everything = sum(parameter.numel() for parameter in network.parameters())
    return {"parameters": float(deployed), "exit_parameters": float(everything - deployed)}
