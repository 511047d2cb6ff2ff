"""Where it is computed, and in which precision: by capability, never by a measurement that could differ.

torch is imported where it is needed: a run whose results are all there does without.
"""

import re
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsss.config import RunConfig
from wsss.errors import UserError
from wsss.runtime.distributed import local_rank

if TYPE_CHECKING:
    import torch

_CPUINFO = Path("/proc/cpuinfo")
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Where none of these is, there is no GPU that torch could use on Linux (NVIDIA's; of Windows' host; AMD's)."""


def choose_device(name: str) -> "torch.device":
    """The device of a name; ``auto`` takes CUDA (each of torchrun's processes its own), else MPS, else the CPU.

    Raises:
        UserError: unknown or unavailable.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank() % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["unknown"])[0]
        raise UserError(f"run.device = '{name}': {reason}; expected auto, cpu, cuda, cuda:N or mps") from None
    return device


def resolve_precision(config: RunConfig, device: "torch.device | None" = None) -> Literal["fp32", "bf16"]:
    """The precision that ``run.precision`` stands for: as configured; ``auto``: bf16 where the device computes it.

    A CUDA device says so itself; a CPU has AVX-512's or AMX's instructions for it.

    Args:
        config: the section ``run``.
        device: where it is computed; None: on ``run.device``.

    Raises:
        UserError: see `choose_device`.
    """
    if config.precision != "auto":
        return config.precision
    if device is None and not _is_surely_cpu(config.device):
        device = choose_device(config.device)
    if device is None or device.type == "cpu":
        able = _CPUINFO.exists() and bool(re.search(r"\b(avx512|amx)_bf16\b", _CPUINFO.read_text()))
    else:
        import torch

        able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if able else "fp32"


def choose_precision(config: RunConfig, device: "torch.device") -> "torch.dtype":
    """`resolve_precision` as torch's type."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[resolve_precision(config, device)]


def autocast(device: "torch.device", dtype: "torch.dtype") -> AbstractContextManager[object]:
    """Autocast to bfloat16; does nothing for float32."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _is_surely_cpu(name: str) -> bool:
    """Whether a device's name stands for the CPU here, as far as can be told without torch."""
    no_gpu = sys.platform == "linux" and not any(Path(driver).exists() for driver in _DRIVERS)
    return name == "cpu" or (name == "auto" and no_gpu)
