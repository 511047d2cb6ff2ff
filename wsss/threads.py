"""Threads that wait for each other briefly, so that a second busy program does not bring this one to a halt.

torch's CPU threads (GNU OpenMP's) wait for the next piece of work by spinning, by default for many milliseconds. Where
another program has the core that a thread needs, the others spin through its time slices: beside a second training on
two cores a step took 4 to more than 18 times as long as alone. Spinning for half a millisecond and then sleeping it
takes 2.6 times as long, and alone as long as before.
"""

import os
from collections.abc import MutableMapping

SPINS = "10000"
"""Rounds of waiting. With 1,000 a step takes a sixth longer even alone: waking a thread takes longer than that."""
_OWN_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set it for this process and those it starts, unless somebody has chosen otherwise. Before torch is imported."""
    if not any(choice in environment for choice in _OWN_CHOICES):
        environment["GOMP_SPINCOUNT"] = SPINS
