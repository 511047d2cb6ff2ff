"""Losses against slow loops written from the equations, the laws they obey, and who teaches whom."""

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.losses import (
    classification_loss,
    detail_loss,
    label_probability,
    lessons,
    pooled_scores,
    segmentation_loss,
    self_regulation_f,
    self_regulation_l,
    sr_strength,
)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def slow_softmax(values: list[float]) -> list[float]:
    shifted = [math.exp(value - max(values)) for value in values]
    return [value / sum(shifted) for value in shifted]


def slow_bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def slow_kl(teacher: list[float], student: list[float], tau: float) -> float:
    """sum t' log(t' / s') of two vectors of logits."""
    t, s = (slow_softmax([value / tau for value in values]) for values in (teacher, student))
    return sum(a * math.log(a / b) for a, b in zip(t, s, strict=True))


def slow_sr_f_space(teacher: Tensor, student: Tensor, present: Tensor, tau: float) -> float:
    """The divergence over positions of each present (image, class) pair, mean over the pairs."""
    B, C = student.shape[:2]
    pairs = [(b, c) for b in range(B) for c in range(C) if present[b, c]]
    losses = [slow_kl(teacher[k].flatten().tolist(), student[k].flatten().tolist(), tau) for k in pairs]
    return sum(losses) / len(losses) if losses else 0.0


def slow_sr_f_class(teacher: Tensor, student: Tensor, tau: float, trust: Tensor | None = None) -> float:
    """The divergence over classes at each position, times what the teacher is worth there, mean over positions."""
    B, _, h, w = student.shape
    total = 0.0
    for b, y, x in itertools.product(range(B), range(h), range(w)):
        loss = slow_kl(teacher[b, :, y, x].tolist(), student[b, :, y, x].tolist(), tau)
        total += loss * (1.0 if trust is None else float(trust[b, y, x]))
    return total / (B * h * w)


def slow_pool(maps: Tensor, factor: int) -> Tensor:
    B, C, h, w = maps.shape
    pooled = torch.zeros(B, C, h // factor, w // factor)
    for y in range(h // factor):
        for x in range(w // factor):
            window = maps[:, :, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            pooled[:, :, y, x] = window.mean((2, 3))
    return pooled


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("axis", ["class", "space"])
def test_sr_f_equals_the_slow_loops_on_three_grids(axis: Literal["class", "space"], tau: float) -> None:
    maps = [rand(2, 3, 8, 8, seed=1), rand(2, 3, 4, 4, seed=2), rand(2, 3, 2, 2, seed=3)]
    present = torch.tensor([[1, 0, 1], [0, 1, 0]])
    wanted = 0.0
    for student in maps[1:]:
        teacher = slow_pool(maps[0], 8 // student.shape[2])
        if axis == "class":
            wanted += tau**2 * slow_sr_f_class(teacher, student, tau)
        else:
            wanted += tau**2 * slow_sr_f_space(teacher, student, present, tau)
    assert float(self_regulation_f(maps, present, tau=tau, axis=axis)) == pytest.approx(wanted, rel=1e-5)


def test_sr_f_pools_a_finer_student_and_upsamples_nothing() -> None:
    teacher, student = rand(1, 3, 2, 2, seed=1), rand(1, 3, 4, 4, seed=2)
    got = self_regulation_f([teacher, student], torch.ones(1, 3), tau=1.0)
    assert float(got) == pytest.approx(slow_sr_f_class(teacher, slow_pool(student, 2), 1.0), rel=1e-5)


def test_sr_f_counts_a_position_as_far_as_its_teacher_is_trusted() -> None:
    maps = [rand(2, 3, 4, 4, seed=1), rand(2, 3, 2, 2, seed=2)]
    trust = [torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(3)), torch.zeros(2, 2, 2)]
    wanted = slow_sr_f_class(slow_pool(maps[0], 2), maps[1], 1.0, slow_pool(trust[0][:, None], 2)[:, 0])
    got = self_regulation_f(maps, torch.ones(2, 3), tau=1.0, trust=trust)
    assert float(got) == pytest.approx(wanted, rel=1e-5)


def test_a_teacher_is_trusted_by_the_probability_of_the_label() -> None:
    maps = rand(1, 3, 2, 2, seed=1)
    labels = torch.zeros(1, 6, 6, dtype=torch.uint8)  # 3 x 3 pixels a cell, read at its centre
    labels[0, 1, 1], labels[0, 1, 4], labels[0, 4, 1], labels[0, 4, 4] = 2, 1, 255, 0
    found = label_probability(maps, labels)[0]
    for (y, x), label in (((0, 0), 2), ((0, 1), 1), ((1, 1), 0)):
        assert float(found[y, x]) == pytest.approx(slow_softmax(maps[0, :, y, x].tolist())[label], rel=1e-5)
    assert float(found[1, 0]) == 0


def test_sr_f_released_is_hard_cross_entropy_to_the_stem() -> None:
    maps = [rand(2, 3, 2, 2, seed=4), rand(2, 3, 2, 2, seed=5)]
    total = 0.0
    for b in range(2):
        for y in range(2):
            for x in range(2):
                label = int(maps[0][b, :, y, x].argmax())
                total -= math.log(slow_softmax([float(v) for v in maps[1][b, :, y, x]])[label])
    got = self_regulation_f(maps, torch.ones(2, 3), tau=7.0, mode="released")
    assert float(got) == pytest.approx(total / 8, rel=1e-5)


def test_sr_f_teacher_gets_no_gradient_and_students_do() -> None:
    maps = [rand(1, 2, 4, 4, seed=k).requires_grad_() for k in range(3)]
    self_regulation_f(maps, torch.ones(1, 2), tau=2.0).backward()  # type: ignore[no-untyped-call]
    assert maps[0].grad is None
    for student in maps[1:]:
        assert student.grad is not None
        assert student.grad.abs().sum() > 0


def test_sr_f_absent_tags_contribute_nothing_in_space() -> None:
    maps = [rand(2, 3, 4, 4, seed=1), rand(2, 3, 4, 4, seed=2).requires_grad_()]
    present = torch.tensor([[1, 1, 0], [0, 0, 0]])
    loss = self_regulation_f(maps, present, tau=2.0, axis="space")
    loss.backward()  # type: ignore[no-untyped-call]
    alone = self_regulation_f([maps[0][:1], maps[1][:1].detach()], present[:1], tau=2.0, axis="space")
    assert float(loss.detach()) == pytest.approx(float(alone))
    assert maps[1].grad is not None
    assert maps[1].grad[1].abs().sum() == 0  # the image without tags
    assert maps[1].grad[0, 2].abs().sum() == 0  # the class that is not tagged
    assert maps[1].grad[0, :2].abs().sum() > 0


def test_sr_f_of_a_batch_without_any_tag_is_zero_not_nan() -> None:
    maps = [rand(2, 3, 4, 4, seed=1), rand(2, 3, 4, 4, seed=2).requires_grad_()]
    loss = self_regulation_f(maps, torch.zeros(2, 3), tau=2.0, axis="space")
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert maps[1].grad is not None
    assert torch.equal(maps[1].grad, torch.zeros_like(maps[1]))


@given(seed=st.integers(0, 1000), tau=st.floats(0.3, 5.0), axis=st.sampled_from(["space", "class"]))
@settings(max_examples=30)
def test_sr_f_is_zero_where_the_student_equals_the_teacher_and_only_there(
    seed: int, tau: float, axis: Literal["class", "space"]
) -> None:
    teacher, other = rand(1, 3, 3, 3, seed=seed), rand(1, 3, 3, 3, seed=seed + 1)
    present = torch.ones(1, 3)
    assert float(self_regulation_f([teacher, teacher], present, tau=tau, axis=axis)) == pytest.approx(
        0, abs=1e-5
    )
    assert float(self_regulation_f([teacher, other], present, tau=tau, axis=axis)) > 1e-3


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_sr_l_equals_the_slow_loops(activation: Literal["sigmoid", "softmax"], tau: float) -> None:
    scores = [rand(2, 3, seed=k) for k in range(3)]
    total = 0.0
    for student in scores[:-1]:
        for own, source in zip(student.tolist(), scores[-1].tolist(), strict=True):
            if activation == "softmax":
                total += slow_kl(source, own, tau) / 2
            else:  # each class is a distribution over yes and no
                total += sum(slow_kl([t, 0.0], [s, 0.0], tau) for t, s in zip(source, own, strict=True)) / 6
    got = self_regulation_l(scores, tau=tau, activation=activation)
    assert float(got) == pytest.approx(tau**2 * total, rel=1e-4)


def test_sr_l_teaches_the_shallow_exits_only() -> None:
    scores = [rand(2, 3, seed=k).requires_grad_() for k in range(3)]
    self_regulation_l(scores, tau=2.0).backward()  # type: ignore[no-untyped-call]
    assert scores[-1].grad is None
    for student in scores[:-1]:
        assert student.grad is not None
        assert student.grad.abs().sum() > 0


def test_sr_of_a_single_exit_is_zero() -> None:
    assert float(self_regulation_f([rand(1, 2, 3, 3)], torch.ones(1, 2), tau=1.0)) == 0
    assert float(self_regulation_l([rand(1, 2)], tau=1.0)) == 0


def test_classification_loss_equals_the_slow_loops() -> None:
    scores, tags = [rand(2, 3, seed=k) for k in range(2)], torch.tensor([[1, 0, 1], [0, 0, 0]])
    terms = [slow_bce(float(score[k]), float(tags[k])) for score in scores for k in np.ndindex(2, 3)]
    assert float(classification_loss(scores, tags)) == pytest.approx(sum(terms) / 6, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.0])
def test_exits_are_summed_and_those_beside_the_last_have_a_weight(weight: float) -> None:
    maps, labels = [rand(2, 3, 4, 4, seed=k) for k in range(3)], torch.randint(0, 3, (2, 8, 8))
    each = [float(segmentation_loss([single], labels)) for single in maps]
    got = segmentation_loss(maps, labels, weight_exits=weight)
    assert float(got) == pytest.approx(each[2] + weight * (each[0] + each[1]), rel=1e-5)
    scores, tags = [rand(2, 3, seed=k) for k in range(3)], torch.tensor([[1, 0, 1], [0, 0, 0]])
    each = [float(classification_loss([score], tags)) for score in scores]
    got = classification_loss(scores, tags, weight_exits=weight)
    assert float(got) == pytest.approx(each[2] + weight * (each[0] + each[1]), rel=1e-5)


def test_segmentation_loss_of_ignored_pixels_only_is_zero_with_zero_gradient() -> None:
    maps = rand(1, 3, 2, 2).requires_grad_()
    loss = segmentation_loss([maps], torch.full((1, 4, 4), 255))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert maps.grad is not None
    assert torch.equal(maps.grad, torch.zeros_like(maps))


@given(
    seed=st.integers(0, 1000),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    scale=st.sampled_from([1.0, 300.0]),
)
@settings(max_examples=40)
def test_segmentation_loss_and_gradient_equal_interpolate_and_cross_entropy(
    seed: int, grid: tuple[int, int], size: tuple[int, int], scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = (scale * torch.randn(3, 4, *grid, generator=generator)).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.randint(0, 5, (3, *size), generator=generator)
    labels[labels == 4] = 255
    exact, got = maps.double().requires_grad_(), maps.clone().requires_grad_()
    logits = F.interpolate(exact, size=size, mode="bilinear", align_corners=False)
    wanted = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / (labels != 255).sum().clamp(
        min=1
    )
    loss = segmentation_loss([got], labels)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-4)
    (slope,), (other,) = torch.autograd.grad(loss, got), torch.autograd.grad(wanted, exact)
    torch.testing.assert_close(slope.double(), other, rtol=1e-3, atol=1e-4)


def test_segmentation_loss_upsamples_bilinearly_to_the_labels() -> None:
    # Two cells with logit differences -4 and 4 give -4, -2, 2, 4 on four pixels (half-pixel centres).
    maps = torch.tensor([[[[0.0, 0.0]], [[-4.0, 4.0]]]])
    labels = torch.tensor([[[1, 1, 1, 1]]])
    wanted = sum(math.log(1 + math.exp(-d)) for d in (-4.0, -2.0, 2.0, 4.0)) / 4
    assert float(segmentation_loss([maps], labels)) == pytest.approx(wanted, rel=1e-5)


def test_pooled_scores_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 3.0], [0.0, 0.0]]]])
    assert float(pooled_scores(maps, "mean")) == 1.0
    assert float(pooled_scores(maps, "max")) == 3.0
    wanted = math.log((math.e + math.e**3 + 2) / 4)
    assert float(pooled_scores(maps, "lse")) == pytest.approx(wanted)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_lse_lies_between_mean_and_max(seed: int) -> None:
    maps = rand(2, 2, 3, 5, seed=seed)
    mean, lse, top = (pooled_scores(maps, pool) for pool in ("mean", "lse", "max"))
    assert bool(((mean <= lse + 1e-5) & (lse <= top + 1e-5)).all())


def test_losses_compute_in_float32_from_bfloat16() -> None:
    maps = [rand(1, 2, 4, 4, seed=k).bfloat16() for k in range(2)]
    labels = torch.randint(0, 2, (1, 9, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = segmentation_loss(maps, labels)
    assert torch.equal(loss, segmentation_loss([single.float() for single in maps], labels))
    assert self_regulation_f(maps, torch.ones(1, 2), tau=2.0).dtype == torch.float32
    scores = [pooled_scores(single) for single in maps]
    assert scores[0].dtype == torch.float32
    assert self_regulation_l(scores, tau=2.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("progress", "ramp", "wanted"),
    [
        (0.0, 0.0, 0.0),
        (0.2499, 0.0, 0.0),
        (0.25, 0.0, 1.0),
        (0.25, 0.5, 0.0),
        (0.5, 0.5, 0.5),
        (0.9, 0.5, 1.0),
    ],
)
def test_schedule(progress: float, ramp: float, wanted: float) -> None:
    assert sr_strength(progress, start=0.25, ramp=ramp) == pytest.approx(wanted)


MAPS = [rand(2, 3, 8, 8, seed=1), rand(2, 3, 8, 8, seed=2), rand(2, 3, 4, 4, seed=3)]
SCORES = [rand(2, 3, seed=seed) for seed in range(3)]


def pair_f(teacher: Tensor, student: Tensor) -> Tensor:
    return self_regulation_f([teacher, student], torch.ones(2, 3), tau=1.5)


def pair_l(teacher: Tensor, student: Tensor) -> Tensor:
    return self_regulation_l([student, teacher], tau=1.5)


def test_neighbours_teach() -> None:
    got = self_regulation_f(MAPS, torch.ones(2, 3), tau=1.5, teacher="previous")
    assert float(got) == pytest.approx(float(pair_f(MAPS[0], MAPS[1]) + pair_f(MAPS[1], MAPS[2])), rel=1e-5)
    got = self_regulation_l(SCORES, tau=1.5, teacher="next")
    wanted = pair_l(SCORES[1], SCORES[0]) + pair_l(SCORES[2], SCORES[1])
    assert float(got) == pytest.approx(float(wanted), rel=1e-5)


def test_the_mean_teaches_all_on_the_coarsest_grid_and_gets_no_gradient_from_its_pupils() -> None:
    mean = (slow_pool(MAPS[0], 2) + slow_pool(MAPS[1], 2) + MAPS[2]) / 3
    own = [single.clone().requires_grad_() for single in MAPS]
    wanted = pair_f(mean, own[0]) + pair_f(mean, own[1]) + pair_f(mean, own[2])
    maps = [single.clone().requires_grad_() for single in MAPS]
    got = self_regulation_f(maps, torch.ones(2, 3), tau=1.5, teacher="mean")
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    for found, expected in zip(torch.autograd.grad(got, maps), torch.autograd.grad(wanted, own), strict=True):
        assert torch.allclose(found, expected, atol=1e-7)
    score = (SCORES[0] + SCORES[1] + SCORES[2]) / 3
    loss = self_regulation_l(SCORES, tau=1.5, teacher="mean")
    assert float(loss) == pytest.approx(float(sum(pair_l(score, each) for each in SCORES)), rel=1e-5)


@pytest.mark.parametrize(
    ("teacher", "teaches", "wanted"),
    [
        ("shallowest", None, [((0,), 1), ((0,), 2)]),
        ("deepest", (False, True, True), []),
        ("next", None, [((0,), 1), ((1,), 2)]),
        ("previous", (False, True, False), [((1,), 2)]),
        ("mean", None, [((0, 1, 2), 0), ((0, 1, 2), 1), ((0, 1, 2), 2)]),
        ("mean", (True, True, False), []),
    ],
)
def test_who_teaches_whom(teacher: str, teaches: tuple[bool, ...] | None, wanted: list[object]) -> None:
    assert lessons(3, teacher, teaches) == wanted
    assert lessons(1, teacher) == []


def test_exits_that_do_not_teach_yet_are_counted_from_the_shallowest() -> None:
    first, last = (True, False, False), (False, False, True)
    assert float(self_regulation_f(MAPS, torch.ones(2, 3), tau=1.0, teaches=last)) == 0
    assert float(self_regulation_l(SCORES, tau=1.0, teaches=first)) == 0
    whole = float(self_regulation_f(MAPS, torch.ones(2, 3), tau=1.0))
    assert float(self_regulation_f(MAPS, torch.ones(2, 3), tau=1.0, teaches=first)) == whole
    assert float(self_regulation_l(SCORES, tau=1.0, teaches=last)) == float(
        self_regulation_l(SCORES, tau=1.0)
    )


def test_tau_squared_is_a_factor_of_soft_lessons() -> None:
    def loss(scaling: bool, mode: Literal["soft", "released"] = "soft") -> float:
        return float(self_regulation_f(MAPS, torch.ones(2, 3), tau=3.0, scaling=scaling, mode=mode))

    assert loss(True) == pytest.approx(9 * loss(False), rel=1e-6)
    assert loss(True, "released") == loss(False, "released")
    one = self_regulation_l(SCORES, tau=3.0, scaling=False)
    assert float(self_regulation_l(SCORES, tau=3.0)) == pytest.approx(9 * float(one), rel=1e-6)


def slow_detail(features: Tensor, logits: Tensor, reach: int) -> float:
    """Maps of one grid: distributions over the 8 neighbours of each position, their divergence, mean over positions."""
    B, _, h, w = features.shape
    probability, total = logits.softmax(1), 0.0
    for b, y, x in itertools.product(range(B), range(h), range(w)):
        teacher, student = [], []
        for down, across in itertools.product((-reach, 0, reach), repeat=2):
            if down or across:
                row, column = min(max(y + down, 0), h - 1), min(max(x + across, 0), w - 1)
                here, there = features[b, :, y, x], features[b, :, row, column]
                teacher.append(float(here @ there / here.norm() / there.norm()))
                student.append(float(probability[b, :, y, x] @ probability[b, :, row, column]))
        total += slow_kl(teacher, student, 0.1)
    return total / (B * h * w)


@pytest.mark.parametrize("reach", [1, 2])
def test_detail_loss_equals_the_slow_loops(reach: int) -> None:
    features, fine = rand(2, 4, 4, 5, seed=1).requires_grad_(), rand(2, 3, 8, 10, seed=2).requires_grad_()
    loss = detail_loss(features, fine, reach=reach)
    assert float(loss.detach()) == pytest.approx(
        slow_detail(features.detach(), slow_pool(fine.detach(), 2), reach), rel=1e-4
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert features.grad is None
    assert fine.grad is not None
    assert fine.grad.abs().sum() > 0
    coarse = rand(2, 3, 2, 3, seed=3)
    enlarged = F.interpolate(coarse, size=(4, 5), mode="bilinear")
    assert float(detail_loss(features, coarse, reach=reach)) == pytest.approx(
        slow_detail(features.detach(), enlarged, reach), rel=1e-4
    )


def test_detail_loss_is_smallest_where_classes_change_at_the_edge() -> None:
    features = torch.zeros(1, 2, 6, 6)
    features[:, 0, :, :3], features[:, 1, :, 3:] = 1, 1
    at_edge, beside = (torch.zeros(1, 2, 6, 6) for _ in range(2))
    at_edge[:, 1, :, 3:], beside[:, 1, :, 1:] = 20, 20
    at_edge[:, 0, :, :3], beside[:, 0, :, :1] = 20, 20
    losses = [
        float(detail_loss(features, maps, reach=1)) for maps in (at_edge, beside, torch.zeros(1, 2, 6, 6))
    ]
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[0] < losses[2] < losses[1]


def test_label_weights_multiply_the_cross_entropy_of_their_pixels() -> None:
    maps = torch.randn(2, 3, 6, 6)
    labels = torch.randint(0, 3, (2, 6, 6)).to(torch.uint8)
    labels[0, 0] = 255
    weights = torch.tensor([0.5, 1.0, 4.0])
    each = F.cross_entropy(maps, labels.long(), ignore_index=255, reduction="none")
    counted = labels != 255
    expected = (each * weights[labels.long().clamp(max=2)])[counted].sum() / counted.sum()
    assert float(segmentation_loss([maps], labels, label_weights=weights)) == pytest.approx(
        float(expected), rel=1e-5
    )
