"""Costs against hand counts and a slow reference: multiply-adds, and times taken in turn."""

import time
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from tests.networks import tiny_multi_exit
from wsss.cost import interleaved_seconds, median_ratios, multiply_adds, network_cost


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
    assert cost["multiply_adds"] == sum(9 * i * o * s * s for i, o, s in blocks) + 2 * 2 * 10 * 2
    assert cost["parameters"] == sum(9 * i * o + o + 2 * o for i, o, _ in blocks) + 10 * 2
    exits = (
        (4, 4),
        (6, 4),
        (8, 4),
    )  # channels, side after pooling to stride 8; each head is as wide as its block
    assert cost["exit_multiply_adds"] == sum(s * s * (d * d + 9 * d**2 + d * 2) for d, s in exits)
    assert cost["exit_parameters"] == sum(d * d + 9 * d**2 + 4 * d + d * 2 + 2 for d, _ in exits)


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


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="0 jobs, 1 rounds"):
        interleaved_seconds({}, rounds=1)
    with pytest.raises(ValueError, match="1 jobs, 0 rounds"):
        interleaved_seconds({"a": lambda: None}, rounds=0)


def test_ratios_within_rounds_survive_a_machine_that_grows_slow() -> None:
    base = [1.0, 1.0, 10.0, 30.0, 70.0]
    ratios = median_ratios({"plain": base, "other": [1.1, 1.2, 11.0, 33.0, 700.0]})
    assert ratios == {"plain": 1.0, "other": pytest.approx(1.1)}
