"""Losses against slow loops written from the equations, the laws they obey, and who teaches whom."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.losses import (
    classification_loss,
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


def slow_sr_f_space(teacher: Tensor, student: Tensor, present: Tensor, tau: float) -> float:
    """-(1/M) sum_j t'_j log s'_j per present class, mean over present (image, class) pairs."""
    B, C, h, w = student.shape
    losses = []
    for b in range(B):
        for c in range(C):
            if not present[b, c]:
                continue
            t = slow_softmax([float(v) / tau for v in teacher[b, c].flatten()])
            s = slow_softmax([float(v) / tau for v in student[b, c].flatten()])
            losses.append(-sum(a * math.log(x) for a, x in zip(t, s, strict=True)) / (h * w))
    return sum(losses) / len(losses) if losses else 0.0


def slow_sr_f_class(teacher: Tensor, student: Tensor, tau: float) -> float:
    B, C, h, w = student.shape
    total = 0.0
    for b in range(B):
        for y in range(h):
            for x in range(w):
                t = slow_softmax([float(teacher[b, c, y, x]) / tau for c in range(C)])
                s = slow_softmax([float(student[b, c, y, x]) / tau for c in range(C)])
                total -= sum(a * math.log(v) for a, v in zip(t, s, strict=True))
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
def test_sr_f_space_equals_the_slow_loops_on_three_grids(tau: float) -> None:
    maps = [rand(2, 3, 8, 8, seed=1), rand(2, 3, 4, 4, seed=2), rand(2, 3, 2, 2, seed=3)]
    present = torch.tensor([[1, 0, 1], [0, 1, 0]])
    wanted = [
        tau**2 * slow_sr_f_space(slow_pool(maps[0], 2), maps[1], present, tau),
        tau**2 * slow_sr_f_space(slow_pool(maps[0], 4), maps[2], present, tau),
    ]
    got = self_regulation_f(maps, present, tau=tau)
    assert float(got) == pytest.approx(sum(wanted) / 2, rel=1e-5)


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_sr_f_class_equals_the_slow_loops(tau: float) -> None:
    maps = [rand(2, 3, 4, 4, seed=1), rand(2, 3, 2, 2, seed=2)]
    got = self_regulation_f(maps, torch.ones(2, 3), tau=tau, axis="class")
    assert float(got) == pytest.approx(
        tau**2 * slow_sr_f_class(slow_pool(maps[0], 2), maps[1], tau), rel=1e-5
    )


def test_sr_f_pools_a_finer_student_and_upsamples_nothing() -> None:
    teacher, student = rand(1, 1, 2, 2, seed=1), rand(1, 1, 4, 4, seed=2)
    got = self_regulation_f([teacher, student], torch.ones(1, 1), tau=1.0)
    assert float(got) == pytest.approx(
        slow_sr_f_space(teacher, slow_pool(student, 2), torch.ones(1, 1), 1.0), rel=1e-5
    )


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
    loss = self_regulation_f(maps, present, tau=2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    alone = self_regulation_f([maps[0][:1], maps[1][:1].detach()], present[:1], tau=2.0)
    assert float(loss.detach()) == pytest.approx(float(alone))
    assert maps[1].grad is not None
    assert maps[1].grad[1].abs().sum() == 0  # the image without tags
    assert maps[1].grad[0, 2].abs().sum() == 0  # the class that is not tagged
    assert maps[1].grad[0, :2].abs().sum() > 0


def test_sr_f_of_a_batch_without_any_tag_is_zero_not_nan() -> None:
    maps = [rand(2, 3, 4, 4, seed=1), rand(2, 3, 4, 4, seed=2).requires_grad_()]
    loss = self_regulation_f(maps, torch.zeros(2, 3), tau=2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert maps[1].grad is not None
    assert torch.equal(maps[1].grad, torch.zeros_like(maps[1]))


@pytest.mark.parametrize("axis", ["space", "class"])
def test_large_tau_gives_uniform_targets(axis: str) -> None:
    maps = [rand(1, 3, 4, 4, seed=1), rand(1, 3, 4, 4, seed=2)]
    uniform = [torch.zeros(1, 3, 4, 4), maps[1]]
    tau = 1e4
    got = self_regulation_f(maps, torch.ones(1, 3), tau=tau, axis=axis)  # type: ignore[arg-type]
    wanted = self_regulation_f(uniform, torch.ones(1, 3), tau=tau, axis=axis)  # type: ignore[arg-type]
    assert float(got) == pytest.approx(float(wanted), rel=1e-6)


@given(seed=st.integers(0, 1000), tau=st.floats(0.3, 5.0), axis=st.sampled_from(["space", "class"]))
@settings(max_examples=30)
def test_sr_f_is_smallest_where_the_student_equals_the_teacher(seed: int, tau: float, axis: str) -> None:
    teacher, other = rand(1, 3, 3, 3, seed=seed), rand(1, 3, 3, 3, seed=seed + 1)
    present = torch.ones(1, 3)
    same = self_regulation_f([teacher, teacher], present, tau=tau, axis=axis)  # type: ignore[arg-type]
    different = self_regulation_f([teacher, other], present, tau=tau, axis=axis)  # type: ignore[arg-type]
    assert float(same) <= float(different) + 1e-6


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_sr_l_sigmoid_equals_the_slow_loops(tau: float) -> None:
    scores = [rand(2, 3, seed=k) for k in range(3)]
    total = 0.0
    for student in scores[:-1]:
        terms = [
            slow_bce(float(student[b, c]) / tau, 1 / (1 + math.exp(-float(scores[-1][b, c]) / tau)))
            for b in range(2)
            for c in range(3)
        ]
        total += tau**2 * sum(terms) / len(terms)
    assert float(self_regulation_l(scores, tau=tau)) == pytest.approx(total / 2, rel=1e-5)


def test_sr_l_softmax_equals_the_slow_loops() -> None:
    tau, scores = 2.0, [rand(2, 3, seed=k) for k in range(2)]
    total = 0.0
    for b in range(2):
        t = slow_softmax([float(v) / tau for v in scores[1][b]])
        s = slow_softmax([float(v) / tau for v in scores[0][b]])
        total -= sum(a * math.log(v) for a, v in zip(t, s, strict=True))
    got = self_regulation_l(scores, tau=tau, activation="softmax")
    assert float(got) == pytest.approx(tau**2 * total / 2, rel=1e-5)


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
    terms = [
        slow_bce(float(score[b, c]), float(tags[b, c]))
        for score in scores
        for b in range(2)
        for c in range(3)
    ]
    assert float(classification_loss(scores, tags)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.0])
def test_exits_beside_the_last_count_as_much_as_their_weight(weight: float) -> None:
    maps, labels = [rand(2, 3, 4, 4, seed=k) for k in range(3)], torch.randint(0, 3, (2, 8, 8))
    each = [float(segmentation_loss([single], labels)) for single in maps]
    wanted = (each[2] + weight * (each[0] + each[1])) / (1 + 2 * weight)
    assert float(segmentation_loss(maps, labels, weight_exits=weight)) == pytest.approx(wanted, rel=1e-5)
    scores, tags = [rand(2, 3, seed=k) for k in range(3)], torch.tensor([[1, 0, 1], [0, 0, 0]])
    each = [float(classification_loss([score], tags)) for score in scores]
    wanted = (each[2] + weight * (each[0] + each[1])) / (1 + 2 * weight)
    assert float(classification_loss(scores, tags, weight_exits=weight)) == pytest.approx(wanted, rel=1e-5)


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


PRESENT = torch.tensor([[1, 0, 1], [0, 1, 0]])


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
