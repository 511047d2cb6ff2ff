"""Where it is computed, and in which precision: by capability, never by a measurement that could differ."""

from contextlib import AbstractContextManager

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


def choose_precision(config: RunConfig, device: torch.device) -> torch.dtype:
    """float32, or bfloat16 where asked for or (``auto``) quicker on the device.

    On a CPU: with AMX, or with AVX-512's instructions for it on other processors than Intel's, on which these
    multiply at no more than float32's rate (measured: half of it).
    """
    if config.precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[config.precision]
    if device.type == "cuda":
        quicker = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        intel = "intel" in str(capabilities.get("cpu_name", "")).lower()
        quicker = bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and not intel))
    return torch.bfloat16 if quicker else torch.float32


def choose_integers(config: RunConfig, device: torch.device) -> bool:
    """Whether ``auto`` computes convolutions in 8-bit integers where no gradient is needed.

    On a CPU that multiplies these quickly and bfloat16 no quicker than float32.
    """
    floats = config.precision == "auto" and choose_precision(config, device) == torch.float32
    return floats and device.type == "cpu" and multiplies_integers()


def multiplies_integers() -> bool:
    """Whether the CPU has instructions for sums of products of 8-bit integers (VNNI)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Autocast to bfloat16; does nothing for float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
