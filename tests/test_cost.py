"""Costs against hand counts and a slow reference: multiply-adds, times in turn, the loss that was made cheap."""

import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import tiny_multi_exit
from wsss import upsampled_loss
from wsss.cost import interleaved_seconds, median_ratios, multiply_adds, network_cost
from wsss.upsampled_loss import upsampled_cross_entropy


def test_convolutions_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 5 x 6 places, 8 outputs of 3 x 3 x 3 each
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),  # depthwise: 8 outputs of 3 x 3 x 1
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.AvgPool2d(2, ceil_mode=True),  # 3 x 3 places
        nn.Conv2d(8, 4, 1),
    )
    wanted = 30 * 8 * 27 + 30 * 8 * 9 + 9 * 4 * 8
    for mode in (True, False):
        assert multiply_adds(network.train(mode), height=10, width=12) == wanted


def test_cost_of_a_network_counted_by_hand() -> None:
    cost = network_cost(tiny_multi_exit(classes=2), height=32, width=32)
    blocks = ((3, 4, 16), (4, 6, 8), (6, 8, 4), (8, 10, 2))  # inputs, outputs, side of the map
    assert cost.multiply_adds == sum(9 * i * o * s * s for i, o, s in blocks) + 2 * 2 * 10 * 2
    assert cost.parameters == sum(9 * i * o + o + 2 * o for i, o, _ in blocks) + 10 * 2
    exits = (
        (4, 4),
        (6, 4),
        (8, 4),
    )  # channels, side after pooling to stride 8; each head is as wide as its block
    assert cost.exit_multiply_adds == sum(s * s * (d * d + 9 * d**2 + d * 2) for d, s in exits)
    assert cost.exit_parameters == sum(d * d + 9 * d**2 + 4 * d + d * 2 + 2 for d, _ in exits)


def test_counting_leaves_the_network_as_it_is() -> None:
    network = tiny_multi_exit(classes=2).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network_cost(network, height=32, width=32)
    assert all(module.training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_jobs_run_in_turn_and_backwards_every_other_round() -> None:
    calls: list[str] = []
    jobs: dict[str, Callable[[], None]] = {name: partial(calls.append, name) for name in ("a", "b", "c")}
    seconds = interleaved_seconds(jobs, rounds=2)
    assert calls == ["a", "b", "c", "a", "b", "c", "c", "b", "a"]
    assert list(seconds) == ["a", "b", "c"]
    assert all(len(times) == 2 and min(times) >= 0 for times in seconds.values())


def test_a_job_that_sleeps_takes_longer() -> None:
    jobs: dict[str, Callable[[], None]] = {"short": lambda: None, "long": lambda: time.sleep(0.01)}
    assert min(interleaved_seconds(jobs, rounds=2)["long"]) >= 0.01


def test_another_clock_is_read_before_and_after_each_job() -> None:
    ticks = iter([1.0, 1.5, 4.0, 6.0])
    assert interleaved_seconds({"a": lambda: None}, rounds=2, clock=lambda: next(ticks)) == {"a": [0.5, 2.0]}


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="0 jobs, 1 rounds"):
        interleaved_seconds({}, rounds=1)
    with pytest.raises(ValueError, match="1 jobs, 0 rounds"):
        interleaved_seconds({"a": lambda: None}, rounds=0)


def test_ratios_within_rounds_survive_a_machine_that_grows_slow() -> None:
    base = [1.0, 1.0, 10.0, 30.0, 70.0]
    ratios = median_ratios({"plain": base, "other": [1.1, 1.2, 11.0, 33.0, 700.0]})
    assert ratios == {"plain": 1.0, "other": pytest.approx(1.1)}


def slow(maps: Tensor, labels: Tensor) -> Tensor:
    size = labels.shape[1:]
    logits = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=255, reduction="sum")


@given(
    seed=st.integers(0, 1000),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    piece=st.sampled_from([1, 50, 300, 1 << 20]),
    band=st.sampled_from([(12, 48), (1, 1), (2, 3)]),
)
@settings(max_examples=60)
def test_loss_and_gradient_equal_interpolate_and_cross_entropy(
    seed: int, grid: tuple[int, int], size: tuple[int, int], piece: int, band: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = 5 * torch.randn(3, 4, *grid, generator=generator)
    labels = torch.randint(0, 5, (3, *size), generator=generator)
    labels[labels == 4] = 255
    wanted = maps.double().requires_grad_()
    got = maps.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsampled_loss, "PIECE_CPU", piece)
        patch.setattr(upsampled_loss, "BAND_CELLS", band[0])
        patch.setattr(upsampled_loss, "BAND_PIXELS", band[1])
        (loss,) = upsampled_cross_entropy([got], labels, ignore=255)
    reference = slow(wanted, labels)
    (3 * reference).backward()  # type: ignore[no-untyped-call]
    (3 * loss).backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(reference.detach()), rel=1e-5, abs=1e-4)
    assert got.grad is not None
    assert wanted.grad is not None
    assert torch.allclose(got.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


def test_loss_of_far_apart_logits_is_finite_and_exact() -> None:
    maps = torch.tensor([[[[0.0]], [[300.0]]]]).requires_grad_()
    (loss,) = upsampled_cross_entropy([maps], torch.zeros(1, 1, 1, dtype=torch.long), ignore=255)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 300
    assert maps.grad is not None
    assert maps.grad.flatten().tolist() == [-1, 1]


def test_loss_between_far_apart_cells_is_exact() -> None:
    """Halfway between two cells that are sure of different classes, every logit is far below either cell's largest."""
    maps = torch.tensor([[[[0.0, -400.0]], [[-400.0, 0.0]], [[-400.0, -400.0]]]]).requires_grad_()
    labels = torch.zeros(1, 1, 3, dtype=torch.long)
    (loss,) = upsampled_cross_entropy([maps], labels, ignore=255)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(slow(maps.detach(), labels)), rel=1e-6)
    assert maps.grad is not None
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("side", [24, 96])
def test_wide_maps_are_upsampled_in_bands(side: int) -> None:
    maps = torch.randn(1, 3, 2, side, requires_grad=True)
    labels = torch.randint(0, 3, (1, 4, 192))
    (loss,) = upsampled_cross_entropy([maps], labels, ignore=255)
    (gradient,) = torch.autograd.grad(loss, maps)
    reference = slow(maps, labels)
    (wanted,) = torch.autograd.grad(reference, maps)
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_maps_share_their_labels() -> None:
    maps = [torch.randn(2, 3, side, side) for side in (2, 5)]
    labels = torch.randint(0, 3, (2, 9, 9))
    for loss, single in zip(upsampled_cross_entropy(maps, labels, ignore=255), maps, strict=True):
        assert float(loss) == pytest.approx(float(slow(single, labels)), rel=1e-5)


def test_loss_of_a_map_that_is_not_finite_says_so() -> None:
    maps = torch.tensor([[[[0.0]], [[float("nan")]]]])
    (loss,) = upsampled_cross_entropy([maps], torch.zeros(1, 1, 1, dtype=torch.long), ignore=255)
    assert not loss.isfinite()


def test_loss_is_float32_from_bfloat16_under_autocast_with_a_gradient_of_the_map() -> None:
    maps = torch.randn(2, 3, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    labels = torch.randint(0, 3, (2, 9, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (loss,) = upsampled_cross_entropy([maps], labels, ignore=255)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(slow(maps.detach().float(), labels)), rel=1e-5)
    assert maps.grad is not None
    assert maps.grad.dtype == torch.bfloat16
