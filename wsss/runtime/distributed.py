"""Several processes on one job: which of them this is (as torchrun says), and what they agree on.

One process is the usual case: everything here then does nothing, and torch is not imported. With several,
all of them run the same command; process 0 leads: it alone writes, prints and decides what is computed.
Collective operations are torch.distributed's.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from wsss.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(days=2)
"""How long a process waits for the others: the leader may measure for hours. A dead one is noticed at once."""


def count() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number, 0 to count - 1."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number on its machine: its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_count() -> int:
    """Processes on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this process writes, prints and decides."""
    return rank() == 0


def part(length: int) -> slice:
    """This process's part of ``length`` things: consecutive, as even as can be."""
    return slice(length * rank() // count(), length * (rank() + 1) // count())


def alone() -> None:
    """From now on this is a process of its own, whatever torchrun says."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Join the other processes for a block, in which all but the leader are silent.

    Raises:
        UserError: another process ended in the middle.
    """
    if count() == 1:
        yield
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # advice about what DDP was told on purpose
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        with contextlib.nullcontext() if leads() else contextlib.redirect_stdout(io.StringIO()):
            yield
    except (RuntimeError, dist.DistError) as error:
        if not _peer_is_gone(error):
            raise
        raise UserError(
            f"process {rank()} of {count()}: another process has ended (see its message above or below); what was "
            "finished is kept, rerun the same command to resume"
        ) from error
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Go on when all processes are here."""
    totals(0)


def agreed(decision: bool) -> bool:
    """The leader's decision, for all."""
    return totals(int(decision and leads())) == [1]


def total(values: "Tensor") -> "Tensor":
    """The sum over all processes, without gradient; the same tensor where there is one process."""
    if count() == 1:
        return values
    import torch.distributed as dist

    summed = values.detach().clone()
    dist.all_reduce(summed)
    return summed


def totals(*numbers: int) -> list[int]:
    """Each number's sum over all processes."""
    if count() == 1:
        return list(numbers)
    import torch

    return [int(number) for number in total(torch.tensor(numbers)).tolist()]


def _peer_is_gone(error: Exception) -> bool:
    """Told from the words of the error alone: gloo raises no type of its own."""
    text = str(error).lower()
    return any(word in text for word in ("connection", "peer", "socket", "gloo", "nccl", "broken pipe"))
