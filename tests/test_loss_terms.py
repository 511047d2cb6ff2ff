"""Which terms a configuration switches on, which blocks each reaches, and what a zero weight leaves behind: nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks import tiny_backbone, tiny_multi_exit, tiny_plain, tiny_segmenter
from wsss.config import ClassifyConfig, SegmentConfig, TrainConfig
from wsss.losses import (
    classification_loss,
    label_probability,
    loss_terms,
    pooled_scores,
    segmentation_loss,
    self_regulation_f,
    term_counts,
)
from wsss.model.decoder import Decoder
from wsss.model.multi_exit import ExitOutputs, MultiExitNetwork, plain_network

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
        terms = loss_terms(multi(IMAGES), TAGS, labels, config, 0.9)
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
        return set(loss_terms(outputs, TAGS, labels, config, progress))

    task = {"cls", "seg"} if labels is not None else {"cls"}
    assert names() == task | {"sr_f", "sr_l"}
    assert names(progress=0.1) == task  # MEA alone in the first quarter
    assert names(weight_sr_f=0.0) == task | {"sr_l"}
    assert names(weight_sr_l=0.0) == task | {"sr_f"}
    assert names(weight_cls=0.0) == (task | {"sr_f", "sr_l"}) - {"cls"}


def test_weights_scale_their_terms_linearly() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    base = SegmentConfig(weight_seg=1.0, weight_cls=1.0, weight_sr_f=1.0, weight_sr_l=1.0)
    scaled = replace(base, weight_seg=7.0, weight_cls=2.0, weight_sr_f=3.0, weight_sr_l=5.0)
    one = loss_terms(outputs, TAGS, LABELS, base, 0.9)
    many = loss_terms(outputs, TAGS, LABELS, scaled, 0.9)
    for name, factor in (("cls", 2), ("sr_f", 3), ("sr_l", 5), ("seg", 7)):
        assert many[name].item() == pytest.approx(factor * one[name].item(), rel=1e-6)


def test_segmentation_scores_leave_background_out() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    config = SegmentConfig()
    before = loss_terms(outputs, TAGS, LABELS, config, 0.9)
    for single in outputs.class_maps:
        single.data[:, 0] += 10.0
    after = loss_terms(outputs, TAGS, LABELS, config, 0.9)
    assert before["cls"].item() == after["cls"].item()
    assert before["sr_l"].item() == after["sr_l"].item()
    assert before["seg"].item() != after["seg"].item()


def test_sr_f_on_features_teaches_those_that_the_shallowest_exit_classifies() -> None:
    network = tiny_multi_exit(2, project=True)
    outputs = network(IMAGES)
    exit_ = network.exits[0]
    assert torch.equal(exit_.classifier(outputs.feature_maps[0]), outputs.class_maps[0])  # type: ignore[operator]
    config = ClassifyConfig(sr_maps="features", weight_cls=0.0, weight_sr_l=0.0, sr_start=0.0)
    got = gradients(network, loss_terms(outputs, TAGS, None, config, 0.9))
    assert all(gradient is None for name, gradient in got.items() if name.startswith("exits."))
    projections = [gradient for name, gradient in got.items() if name.startswith("projections.")]
    assert len(projections) == 6  # weight and bias of three students
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in projections)
    mea = gradients(network, loss_terms(network(IMAGES), TAGS, None, ClassifyConfig(), 0.0))
    assert all(gradient is not None for name, gradient in mea.items() if name.startswith("exits.0."))


@pytest.mark.parametrize("structure", ["conv", "ushape"])
@pytest.mark.parametrize("stage", ["classify", "segment"])
def test_the_deployed_head_learns_with_exits_as_it_does_alone(stage: str, structure: str) -> None:
    kind = ClassifyConfig if stage == "classify" else SegmentConfig
    config: TrainConfig = kind(structure=structure, decoder_channels=8, sr_start=1.0)  # type: ignore[arg-type]
    labels = LABELS if stage == "segment" else None
    network = MultiExitNetwork(
        plain_network(config, 2, tiny_backbone()), classes=2 + (labels is not None), width=8
    )
    found = []
    for mea in (True, False):
        torch.manual_seed(0)  # dropout
        terms = loss_terms(network(IMAGES), TAGS, labels, replace(config, mea=mea), 0.9)
        found.append(gradients(network, terms))
    head = [name for name in found[0] if name.startswith("plain.head.")]
    for name in head:
        first, other = found[0][name], found[1][name]
        assert first is not None
        assert other is not None
        assert torch.equal(first, other), name
        assert first.abs().sum() > 0
    assert head


def test_a_tag_layer_stands_between_pooled_map_and_score_and_keeps_tags_from_nothing_else() -> None:
    network = MultiExitNetwork(tiny_plain(3), classes=3, width=8, tag_layers=2)
    outputs, config = network(IMAGES), SegmentConfig(weight_seg=0.0, sr_start=1.0, mea=False, pool="mean")
    layers = list(network.tag_layers)
    before = loss_terms(outputs, TAGS, LABELS, config, 0.9)["cls"]
    assert torch.equal(loss_terms(outputs, TAGS, LABELS, config, 0.9, tag_layers=layers)["cls"], before)
    weight = torch.tensor([[0.5, 2.0], [-1.0, 3.0]])
    layers[-1].weight.data, layers[-1].bias.data = weight, torch.tensor([0.3, -0.2])
    scores = outputs.class_maps[-1][:, 1:].mean((2, 3)) @ weight.T + torch.tensor([0.3, -0.2])
    wanted = 0.2 * classification_loss([scores], TAGS)
    got = loss_terms(outputs, TAGS, LABELS, config, 0.9, tag_layers=layers)["cls"]
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert not [name for name in network.deploy().state_dict() if "tag" in name]


def test_positions_count_by_their_teachers_word_on_the_label() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    config = SegmentConfig(weight_cls=0.0, weight_seg=0.0, weight_sr_l=0.0, sr_f_trust="label")
    trust = [label_probability(single, LABELS) for single in outputs.class_maps]
    wanted = self_regulation_f(outputs.class_maps, TAGS, tau=2.0, trust=trust)
    got = loss_terms(outputs, TAGS, LABELS, config, 0.9)["sr_f"]
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    unlabelled = loss_terms(outputs, TAGS, torch.full_like(LABELS, 255), config, 0.9)["sr_f"]
    assert float(unlabelled.detach()) == 0


def test_pixel_level_sr_l_is_what_the_head_teaches_the_other_decoder_exits() -> None:
    network = multi_exit("ushape")
    outputs = network(LARGE)
    config = SegmentConfig(weight_cls=0.0, weight_seg=0.0, weight_sr_f=0.0, weight_sr_l=0.0, weight_sr_p=0.7)
    head, others = outputs.class_maps[-1], outputs.class_maps[4:7]
    wanted = sum(self_regulation_f([head, other], TAGS, tau=2.0) for other in others)
    got = loss_terms(outputs, TAGS, LARGE_LABELS, config, 0.9)["sr_p"]
    assert float(got.detach()) == pytest.approx(0.7 * float(torch.as_tensor(wanted).detach()), rel=1e-5)


def test_coarse_regions_and_further_scales_have_their_own_cross_entropy() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    generator = torch.Generator().manual_seed(1)
    regions, half = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 3, 1, 1, generator=generator)
    more = replace(outputs, regions=regions, scaled=[half])
    config = SegmentConfig(weight_cls=0.0, weight_seg=1.0, mea=False, sr_start=1.0)
    strongest = torch.maximum(outputs.class_maps[-1], half.expand(2, 3, 2, 2))
    wanted = segmentation_loss([outputs.class_maps[-1], half, strongest], LABELS)
    wanted = wanted + 0.4 * segmentation_loss([regions], LABELS)
    got = loss_terms(more, TAGS, LABELS, config, 0.9)["seg"]
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)


def test_a_term_whose_teacher_does_not_teach_yet_is_left_out() -> None:
    outputs = tiny_multi_exit(3)(IMAGES)
    config = SegmentConfig(weight_sr_p=1.0)

    def names(*teaches: int) -> set[str]:
        terms = loss_terms(outputs, TAGS, LABELS, config, 0.9, teaches=[bool(each) for each in teaches])
        return set(terms) - {"cls", "seg"}

    assert names(0, 1, 1, 0) == set()
    assert names(1, 0, 0, 0) == {"sr_f"}
    assert names(0, 0, 0, 1) == {"sr_l", "sr_p"}


PARTS = (slice(0, 1), slice(1, 3), slice(3, 5))


@pytest.mark.parametrize(
    "changes",
    [{}, {"sr_axis": "space"}, {"sr_mode": "released"}, {"sr_maps": "features"}, {"sr_f_trust": "label"}],
    ids=lambda changes: "-".join(changes) or "class",
)
def test_terms_of_a_batch_are_the_means_of_its_parts_weighted_by_their_counts(
    changes: dict[str, Any],
) -> None:
    config = SegmentConfig(weight_sr_p=1.0, weight_detail=1.0, **changes)
    generator = torch.Generator().manual_seed(1)
    network = MultiExitNetwork(tiny_plain(3), classes=3, width=8, project=True, detail_block=2)
    outputs = network(torch.rand(5, 3, 32, 32, generator=generator))
    tags = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.randint(0, 3, (5, 32, 32), generator=generator)
    for index in range(5):
        labels[index, : 7 * index] = 255
    whole, counts = loss_terms(outputs, tags, labels, config, 0.9), term_counts(tags, labels, config)
    assert whole.keys() == counts.keys()
    total = dict.fromkeys(whole, 0.0)
    for part in PARTS:
        assert outputs.detail is not None
        own = ExitOutputs(
            [m[part] for m in outputs.class_maps],
            [m[part] for m in outputs.feature_maps],
            outputs.detail[part],
        )
        terms = loss_terms(own, tags[part], labels[part], config, 0.9)
        shares = term_counts(tags[part], labels[part], config)
        for name, term in terms.items():
            total[name] += float(term.detach() * shares[name] / counts[name])
    for name, value in whole.items():
        assert total[name] == pytest.approx(float(value.detach()), rel=1e-4), name


LARGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
LARGE_LABELS = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(6), dtype=torch.uint8)
ONE_TERM = {
    "cls": {"weight_cls": 1.0},
    "seg": {"weight_seg": 1.0},
    "sr_f": {"weight_sr_f": 1.0},
    "sr_l": {"weight_sr_l": 1.0},
    "sr_p": {"weight_sr_p": 1.0},
    "detail": {"weight_detail": 1.0},
}


def multi_exit(structure: str) -> MultiExitNetwork:
    plain = tiny_segmenter(2, structure=structure)
    return MultiExitNetwork(plain, classes=3, width=8, detail_block=2).train()


def reached(network: MultiExitNetwork, term: str, **changes: object) -> dict[str, str]:
    """Per part of the network, one letter per block: x where any weight has a gradient that is not zero."""
    off = SegmentConfig(weight_cls=0.0, weight_seg=0.0, weight_sr_f=0.0, weight_sr_l=0.0)
    config = replace(off, **(ONE_TERM[term] | changes))  # type: ignore[arg-type]
    network.zero_grad(set_to_none=True)
    terms = loss_terms(network(LARGE), TAGS, LARGE_LABELS, config, 0.9)
    assert set(terms) == {term}
    terms[term].backward()  # type: ignore[no-untyped-call]
    decoder = network.plain.decoder
    parts: dict[str, list[nn.Module]] = {
        "encoder": list(network.plain.backbone.features.blocks),  # type: ignore[arg-type]
        "decoder": list(decoder.blocks) if isinstance(decoder, Decoder) else [],
        "exits": list(network.exits),
        "head": [network.plain.head],
    }
    return {
        name: "".join("x" if touched(module) else "." for module in modules)
        for name, modules in parts.items()
    }


def touched(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


CONV = [
    # term, changes, encoder blocks 1..4, exits on blocks 1..3, head
    ("cls", {}, "xxxx", "xxx", "x"),
    ("cls", {"mea": False}, "xxxx", "...", "x"),
    ("seg", {}, "xxxx", "xxx", "x"),
    ("seg", {"mea": False}, "xxxx", "...", "x"),
    ("sr_f", {}, "xxxx", ".xx", "x"),  # the shallowest exit only teaches
    ("sr_f", {"sr_axis": "space"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_f_trust": "label"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_mode": "released"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_f_teacher": "previous"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_f_teacher": "mean"}, "xxxx", "xxx", "x"),
    ("sr_l", {}, "xxx.", "xxx", "."),  # the deepest exit only teaches
    ("sr_l", {"sr_l_activation": "softmax"}, "xxx.", "xxx", "."),
    ("sr_l", {"sr_l_teacher": "next"}, "xxx.", "xxx", "."),
    ("sr_l", {"sr_l_teacher": "mean"}, "xxxx", "xxx", "x"),
    ("sr_p", {}, "xxx.", "xxx", "."),
    ("detail", {}, "xxxx", "...", "x"),  # of the deployed head alone
]


@pytest.mark.parametrize(("term", "changes", "encoder", "exits", "head"), CONV)
def test_conv(term: str, changes: dict[str, object], encoder: str, exits: str, head: str) -> None:
    found = reached(multi_exit("conv"), term, **changes)
    assert found == {"encoder": encoder, "decoder": "", "exits": exits, "head": head}


USHAPE = [
    # term, changes, encoder blocks 1..4, decoder blocks 5..8, exits on blocks 1..7, head (the exit of block 8)
    ("cls", {}, "xxxx", "xxxx", "xxxxxxx", "x"),
    ("cls", {"mea": False}, "xxxx", "xxxx", ".......", "x"),
    ("seg", {}, "xxxx", "xxxx", "xxxxxxx", "x"),
    ("seg", {"mea": False}, "xxxx", "xxxx", ".......", "x"),
    ("sr_f", {}, "xxxx", "....", ".xxx...", "."),  # in the encoder alone
    ("sr_f", {"sr_f_teacher": "mean"}, "xxxx", "....", "xxxx...", "."),
    ("sr_l", {}, "xxxx", "xxx.", "....xxx", "."),  # in the decoder, and through its skip connections
    ("sr_l", {"sr_l_teacher": "mean"}, "xxxx", "xxxx", "....xxx", "x"),
    ("sr_p", {}, "xxxx", "xxx.", "....xxx", "."),
    ("detail", {}, "xxxx", "xxxx", ".......", "x"),  # reaches the decoder
]


@pytest.mark.parametrize(("term", "changes", "encoder", "decoder", "exits", "head"), USHAPE)
def test_ushape(
    term: str, changes: dict[str, object], encoder: str, decoder: str, exits: str, head: str
) -> None:
    found = reached(multi_exit("ushape"), term, **changes)
    assert found == {"encoder": encoder, "decoder": decoder, "exits": exits, "head": head}


def test_a_single_exit_on_a_side_leaves_that_side_unregulated() -> None:
    plain = multi_exit("ushape").plain
    config = SegmentConfig(weight_cls=0.0)
    for exits, wanted in (
        ((1, 8), set()),
        ((1, 3, 8), {"sr_f"}),
        ((1, 6), {"sr_l"}),
        ((2, 3, 5), {"sr_f", "sr_l"}),
    ):
        outputs = MultiExitNetwork(plain, classes=3, width=8, exits=exits)(LARGE)
        terms = loss_terms(outputs, TAGS, LARGE_LABELS, config, 0.9)
        assert set(terms) == {"seg"} | wanted
