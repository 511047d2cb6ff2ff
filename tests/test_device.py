"""The precision that ``run.precision`` stands for, on a CPU with given capabilities."""

from pathlib import Path

import pytest
import torch

from wsss.config import RunConfig
from wsss.runtime import device
from wsss.runtime.device import choose_precision, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16 vnni", "bf16"),
        ("fpu amx_bf16", "bf16"),
        ("fpu avx512_vnni bf16", "fp32"),
        (None, "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, expected: str
) -> None:
    monkeypatch.setattr(device, "_CPUINFO", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert resolve_precision(RunConfig(device="cpu")) == expected
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    assert choose_precision(RunConfig(), CPU) == dtypes[expected]
    for name, dtype in dtypes.items():
        config = RunConfig(device="cpu", precision=name)  # type: ignore[arg-type]
        assert resolve_precision(config) == name
        assert choose_precision(config, CPU) == dtype


def test_this_processor_is_judged_as_torch_does() -> None:
    able = {name for name, has in torch.cpu.get_capabilities().items() if has}
    expected = "bf16" if able & {"avx512_bf16", "amx_bf16"} else "fp32"
    assert resolve_precision(RunConfig(), CPU) == expected


def test_auto_takes_fp32_on_other_devices() -> None:
    assert resolve_precision(RunConfig(), torch.device("meta")) == "fp32"
