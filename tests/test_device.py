"""What ``run.precision = "auto"`` takes on a CPU: a precision, and integers."""

import pytest
import torch

from wsss.config import RunConfig
from wsss.runtime.device import choose_integers, choose_precision

CPU = torch.device("cpu")
AMD, INTEL = "AMD EPYC 9R14", "Intel Xeon"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": INTEL, "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": INTEL, "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": AMD, "avx512_bf16": True}, torch.bfloat16),
        ({"cpu_name": AMD, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_bfloat16_where_it_is_quicker(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(RunConfig(), CPU) == expected
    assert choose_precision(RunConfig(precision="fp32"), CPU) == torch.float32
    assert choose_precision(RunConfig(precision="bf16"), CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"cpu_name": INTEL, "avx512_bf16": True, "avx512_vnni": True}, True),
        ({"cpu_name": INTEL, "avx_vnni": True}, True),
        ({"cpu_name": INTEL, "avx512_bf16": True}, False),
        ({"cpu_name": INTEL, "amx_bf16": True, "avx512_vnni": True}, False),
        ({"cpu_name": AMD, "avx512_bf16": True, "avx512_vnni": True}, False),
        ({}, False),
    ],
)
def test_integers_where_they_alone_are_quicker(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_integers(RunConfig(), CPU) == expected
    assert not choose_integers(RunConfig(precision="fp32"), CPU)
    assert not choose_integers(RunConfig(precision="bf16"), CPU)
    assert not choose_integers(RunConfig(), torch.device("meta"))
