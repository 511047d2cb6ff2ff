"""Where it is computed, and in which precision: by capability, never by a measurement that could differ."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from wsss.config import RunConfig
from wsss.errors import UserError
from wsss.runtime.distributed import local_rank


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA (each of torchrun's processes its own), else MPS, else the CPU.

    Raises:
        UserError: unknown or unavailable.
    """
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


def resolve_precision(config: RunConfig, device: torch.device | None = None) -> Literal["fp32", "bf16"]:
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
    device = device or choose_device(config.device)
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        able = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if able else "fp32"


def choose_precision(config: RunConfig, device: torch.device) -> torch.dtype:
    """`resolve_precision` as torch's type."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[resolve_precision(config, device)]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to bfloat16; does nothing for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
