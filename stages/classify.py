"""Stage 1: train the multi-exit classification network on tags (MEA + SR-F + SR-L).

Writes ``network/*`` (the deployed network) and ``exits/*``.
"""

from stages import Context
from stages.training import fit, network_groups
from wsss.runtime import distributed
from wsss.store.artifacts import write_artifact


def compute(context: Context) -> None:
    """Train and write the artifact."""
    network = fit(context, context.config.classify, samples=context.data, masks=None)
    if distributed.leads():
        write_artifact(context.output, context.stamp, groups=network_groups(network))
    distributed.wait()
