"""The precision that ``run.precision`` stands for, on a CPU with given capabilities."""

import pytest
import torch

from wsss.config import RunConfig
from wsss.runtime.device import choose_precision, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ({"avx512_vnni": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision(RunConfig(device="cpu")) == expected
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    assert choose_precision(RunConfig(), CPU) == dtypes[expected]
    for name, dtype in dtypes.items():
        config = RunConfig(device="cpu", precision=name)  # type: ignore[arg-type]
        assert resolve_precision(config) == name
        assert choose_precision(config, CPU) == dtype


def test_auto_takes_fp32_on_other_devices() -> None:
    assert resolve_precision(RunConfig(), torch.device("meta")) == "fp32"
