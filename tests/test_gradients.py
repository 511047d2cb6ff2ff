"""Which blocks each term reaches, in both structures: a table of zero and non-zero gradients per block."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.networks import tiny_backbone
from wsss.config import SegmentConfig
from wsss.losses import loss_terms
from wsss.model.multi_exit import MultiExitNetwork, segmentation_network

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
TAGS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
LABELS = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(6), dtype=torch.uint8)
ONE_TERM = {
    "cls": {"weight_cls": 1.0},
    "seg": {"weight_seg": 1.0},
    "sr_f": {"weight_sr_f": 1.0},
    "sr_l": {"weight_sr_l": 1.0},
}


def multi_exit(structure: str) -> MultiExitNetwork:
    plain = segmentation_network(
        tiny_backbone(), 2, head="light", head_channels=8, structure=structure, decoder_channels=8
    )
    return MultiExitNetwork(plain, classes=3, width=8).train()


def reached(network: MultiExitNetwork, term: str, **changes: object) -> dict[str, str]:
    """Per part of the network, one letter per block: x where any weight has a gradient that is not zero."""
    off = SegmentConfig(weight_cls=0.0, weight_seg=0.0, weight_sr_f=0.0, weight_sr_l=0.0)
    config = replace(off, **(ONE_TERM[term] | changes))  # type: ignore[arg-type]
    network.zero_grad(set_to_none=True)
    terms = loss_terms(
        network(IMAGES), TAGS, LABELS, config=config, weight_seg=config.weight_seg, progress=0.9
    )
    assert set(terms) == {term}
    terms[term].backward()  # type: ignore[no-untyped-call]
    decoder = network.plain.decoder
    parts: dict[str, list[nn.Module]] = {
        "encoder": list(network.plain.backbone.features.blocks),  # type: ignore[arg-type]
        "decoder": list(decoder.blocks) if decoder else [],
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
    ("sr_f", {"sr_axis": "class"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_mode": "released"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_f_teacher": "previous"}, "xxxx", ".xx", "x"),
    ("sr_f", {"sr_f_teacher": "mean"}, "xxxx", "xxx", "x"),
    ("sr_l", {}, "xxx.", "xxx", "."),  # the deepest exit only teaches
    ("sr_l", {"sr_l_activation": "softmax"}, "xxx.", "xxx", "."),
    ("sr_l", {"sr_l_teacher": "next"}, "xxx.", "xxx", "."),
    ("sr_l", {"sr_l_teacher": "mean"}, "xxxx", "xxx", "x"),
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
        outputs = MultiExitNetwork(plain, classes=3, width=8, exits=exits)(IMAGES)
        terms = loss_terms(outputs, TAGS, LABELS, config=config, weight_seg=1.0, progress=0.9)
        assert set(terms) == {"seg"} | wanted
