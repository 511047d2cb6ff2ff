"""Who teaches whom: every choice of teacher as the published loss of the pairs it stands for."""

import pytest
import torch
from torch import Tensor

from wsss.losses import self_regulation_f, self_regulation_l

PRESENT = torch.tensor([[1, 0, 1], [0, 1, 0]])


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair_f(teacher: Tensor, student: Tensor) -> float:
    return float(self_regulation_f([teacher, student], PRESENT, tau=1.5))


def pair_l(teacher: Tensor, student: Tensor) -> float:
    return float(self_regulation_l([student, teacher], tau=1.5))


MAPS = [rand(2, 3, 8, 8, seed=1), rand(2, 3, 8, 8, seed=2), rand(2, 3, 4, 4, seed=3)]
SCORES = [rand(2, 3, seed=seed) for seed in range(3)]


def test_the_previous_exit_teaches_detail() -> None:
    got = self_regulation_f(MAPS, PRESENT, tau=1.5, teacher="previous")
    assert float(got) == pytest.approx((pair_f(MAPS[0], MAPS[1]) + pair_f(MAPS[1], MAPS[2])) / 2, rel=1e-6)


def test_the_mean_teaches_detail_on_the_coarsest_grid() -> None:
    coarse = [maps.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)) for maps in MAPS[:2]]
    mean = (coarse[0] + coarse[1] + MAPS[2]) / 3
    got = self_regulation_f(MAPS, PRESENT, tau=1.5, teacher="mean")
    assert float(got) == pytest.approx(sum(pair_f(mean, maps) for maps in MAPS) / 3, rel=1e-5)


def test_the_next_exit_teaches_semantics() -> None:
    got = self_regulation_l(SCORES, tau=1.5, teacher="next")
    wanted = (pair_l(SCORES[1], SCORES[0]) + pair_l(SCORES[2], SCORES[1])) / 2
    assert float(got) == pytest.approx(wanted, rel=1e-6)


def test_the_mean_teaches_semantics() -> None:
    mean = (SCORES[0] + SCORES[1] + SCORES[2]) / 3
    got = self_regulation_l(SCORES, tau=1.5, teacher="mean")
    assert float(got) == pytest.approx(sum(pair_l(mean, score) for score in SCORES) / 3, rel=1e-5)


@pytest.mark.parametrize("teacher", ["shallowest", "previous", "mean"])
def test_tau_squared_is_a_factor_of_sr_f(teacher: str) -> None:
    def loss(scaling: bool, mode: str = "soft") -> float:
        return float(self_regulation_f(MAPS, PRESENT, tau=3.0, teacher=teacher, scaling=scaling, mode=mode))  # type: ignore[arg-type]

    assert loss(True) == pytest.approx(9 * loss(False), rel=1e-6)
    assert loss(True, "released") == loss(False, "released")


def test_tau_squared_is_a_factor_of_sr_l() -> None:
    one = self_regulation_l(SCORES, tau=3.0, scaling=False)
    assert float(self_regulation_l(SCORES, tau=3.0)) == pytest.approx(9 * float(one), rel=1e-6)


@pytest.mark.parametrize("teacher", ["shallowest", "previous", "mean"])
def test_a_single_exit_teaches_nobody(teacher: str) -> None:
    assert float(self_regulation_f(MAPS[:1], PRESENT, tau=1.0, teacher=teacher)) == 0  # type: ignore[arg-type]
    names = {"shallowest": "deepest", "previous": "next", "mean": "mean"}
    assert float(self_regulation_l(SCORES[:1], tau=1.0, teacher=names[teacher])) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("teacher", ["previous", "mean"])
def test_teachers_get_no_gradient_from_their_pupils(teacher: str) -> None:
    """An exit that learns and teaches has the gradient of its own lesson alone."""
    maps = [single.clone().requires_grad_() for single in MAPS]
    self_regulation_f(maps, PRESENT, tau=1.5, teacher=teacher).backward()  # type: ignore[no-untyped-call,arg-type]
    if teacher == "previous":
        assert maps[0].grad is None
    own = MAPS[1].clone().requires_grad_()
    if teacher == "previous":
        source = MAPS[0]
    else:
        coarse = [single.reshape(2, 3, 4, 2, 4, 2).mean((3, 5)) for single in MAPS[:2]]
        source = (coarse[0] + coarse[1] + MAPS[2]) / 3
    lessons = 2 if teacher == "previous" else 3
    (self_regulation_f([source, own], PRESENT, tau=1.5) / lessons).backward()  # type: ignore[no-untyped-call]
    assert maps[1].grad is not None
    assert own.grad is not None
    assert torch.allclose(maps[1].grad, own.grad, atol=1e-7)
