"""Stage 1: train the multi-exit classification network on tags (MEA + SR-F + SR-L).

Writes ``network/*`` (the deployed network) and ``exits/*``.
"""

from functools import partial

from stages.context import Context
from stages.fitting import fit, network_groups
from wsss.artifacts import write_artifact
from wsss.networks import classification_network


def compute(context: Context) -> None:
    """Train and write the artifact."""
    classes = len(context.data.classes)
    network = fit(
        context,
        context.config.classify,
        samples=context.data,
        masks=None,
        weight_seg=0.0,
        build=partial(classification_network, classes=classes),
    )
    write_artifact(context.output, context.stamp, groups=network_groups(network))
