"""``torch.compile`` where it works, and the network as it is where it does not."""

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

from wsss.model.multi_exit import ExitOutputs


def compiled(network: nn.Module) -> Callable[[Tensor], ExitOutputs]:
    """The network compiled at its first call, for inputs of one shape.

    The weights stay the network's own. Where compiling fails (no compiler, an operation that is not supported) this
    says so once, and the network runs as it is. An error of the network itself comes again from there.

    Args:
        network: a `wsss.model.multi_exit.MultiExitNetwork` on its device.
    """
    quick = torch.compile(network, dynamic=False)
    works = True

    @functools.wraps(network.forward)
    def run(images: Tensor) -> ExitOutputs:
        nonlocal works
        if works:
            try:
                found: ExitOutputs = quick(images)
                return found
            except (
                Exception
            ) as error:  # compilers fail with almost anything; what the network raises comes again below
                works = False
                reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
                tqdm.write(
                    f"run.compile: not possible here, goes on without ({type(error).__name__}: {reason})"
                )
        outputs: ExitOutputs = network(images)
        return outputs

    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # it warns of each thing that it leaves alone
    return run
