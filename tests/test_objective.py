"""Which terms a configuration switches on, and what a zero weight leaves behind: nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks import tiny_multi_exit, tiny_plain
from wsss.config import ClassifyConfig, SegmentConfig, TrainConfig
from wsss.losses import classification_loss, loss_terms, pooled_scores, segmentation_loss

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
TAGS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
LABELS = torch.randint(0, 3, (2, 32, 32), generator=torch.Generator().manual_seed(6), dtype=torch.uint8)
OFF: dict[str, Any] = {"mea": False, "weight_sr_f": 0.0, "weight_sr_l": 0.0}


def gradients(module: torch.nn.Module, terms: dict[str, Tensor]) -> dict[str, Tensor | None]:
    module.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_all_terms_off_leave_the_plain_networks_gradients_bit_equal() -> None:
    for labels, config in ((None, ClassifyConfig(**OFF)), (LABELS, SegmentConfig(weight_cls=0.0, **OFF))):
        classes = 2 if labels is None else 3
        multi, plain = tiny_multi_exit(classes), tiny_plain(classes)
        plain.load_state_dict(multi.plain.state_dict())
        terms = loss_terms(multi(IMAGES), TAGS, labels, config=config, weight_seg=0.8, progress=0.9)
        got = gradients(multi, terms)
        output = plain(IMAGES)
        loss = (
            classification_loss([pooled_scores(output)], TAGS)
            if labels is None
            else 0.8 * segmentation_loss([output], labels)
        )
        wanted = gradients(plain, {"only": loss})
        for name, gradient in wanted.items():
            other = got[f"plain.{name}"]
            assert gradient is not None
            assert other is not None
            assert torch.equal(gradient, other), name
        assert all(got[name] is None for name in got if name.startswith("exits."))


@pytest.mark.parametrize("section", [ClassifyConfig(), SegmentConfig()])
def test_terms_of_each_switch(section: TrainConfig) -> None:
    labels = LABELS if isinstance(section, SegmentConfig) else None
    outputs = tiny_multi_exit(2 if labels is None else 3)(IMAGES)

    def names(progress: float = 0.9, **changes: object) -> set[str]:
        config = replace(section, **changes)  # type: ignore[arg-type]
        return set(loss_terms(outputs, TAGS, labels, config=config, weight_seg=0.8, progress=progress))

    task = {"cls", "seg"} if labels is not None else {"cls"}
    assert names() == task | {"sr_f", "sr_l"}
    assert names(progress=0.1) == task  # MEA alone in the first quarter
    assert names(weight_sr_f=0.0) == task | {"sr_l"}
    assert names(weight_sr_l=0.0) == task | {"sr_f"}
    assert names(weight_cls=0.0) == (task | {"sr_f", "sr_l"}) - {"cls"}


def test_weights_scale_their_terms_linearly() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    base = SegmentConfig(weight_cls=1.0, weight_sr_f=1.0, weight_sr_l=1.0)
    scaled = replace(base, weight_cls=2.0, weight_sr_f=3.0, weight_sr_l=5.0)
    one = loss_terms(outputs, TAGS, LABELS, config=base, weight_seg=1.0, progress=0.9)
    many = loss_terms(outputs, TAGS, LABELS, config=scaled, weight_seg=7.0, progress=0.9)
    for name, factor in (("cls", 2), ("sr_f", 3), ("sr_l", 5), ("seg", 7)):
        assert many[name].item() == pytest.approx(factor * one[name].item(), rel=1e-6)


def test_segmentation_scores_leave_background_out() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    config = SegmentConfig()
    before = loss_terms(outputs, TAGS, LABELS, config=config, weight_seg=0.8, progress=0.9)
    for single in outputs.class_maps:
        single.data[:, 0] += 10.0
    after = loss_terms(outputs, TAGS, LABELS, config=config, weight_seg=0.8, progress=0.9)
    assert before["cls"].item() == after["cls"].item()
    assert before["sr_l"].item() == after["sr_l"].item()
    assert before["seg"].item() != after["seg"].item()


def test_sr_f_on_projected_features() -> None:
    network = tiny_multi_exit(2, project=4)
    outputs = network(IMAGES)
    config = ClassifyConfig(sr_maps="features", weight_cls=0.0, weight_sr_l=0.0)
    got = gradients(network, loss_terms(outputs, TAGS, None, config=config, weight_seg=0, progress=0.9))
    last = len(network.projections) - 1
    assert got["projections.0.weight"] is None  # the teacher's projection
    taught = got[f"projections.{last}.weight"]
    assert taught is not None
    assert taught.abs().sum() > 0
