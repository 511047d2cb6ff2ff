"""Costs of variants: exits where something uses them, one deployed network, a step that is a step."""

from dataclasses import replace

import pytest
import torch

from stages.commands.ablate.cost import variant_costs
from stages.training import training_network
from tests.networks import tiny_multi_exit
from wsss.config import Config, RunConfig, SegmentConfig
from wsss.cost import PROGRESS, made_up_batch, prediction, training_step
from wsss.losses import sr_strength

SMALL = SegmentConfig(
    backbone="tf_efficientnet_lite0",
    weights="bundled",
    output_stride=16,
    exits=(3, 4),
    exit_channels=8,
    head="light",
    head_channels=8,
    crop=32,
    batch=2,
)
PLAIN = replace(SMALL, mea=False, weight_sr_f=0.0, weight_sr_l=0.0)
CPU = torch.device("cpu")


def test_only_a_variant_that_uses_exits_has_them() -> None:
    assert len(training_network(SMALL, 2, "segment").exits) == 2
    assert len(training_network(replace(PLAIN, weight_sr_l=0.1), 2, "segment").exits) == 2
    plain = training_network(PLAIN, 2, "segment")
    assert not plain.exits
    assert len(plain(torch.rand(1, 3, 32, 32)).class_maps) == 1


def test_variants_are_measured_against_the_first() -> None:
    run = RunConfig(device="cpu", precision="fp32")
    configs = {"plain": Config(segment=PLAIN, run=run), "full": Config(segment=SMALL, run=run)}
    costs = variant_costs(configs, 2, rounds=1)
    plain, full = costs["plain"], costs["full"]
    assert plain["step_ratio"] == 1
    assert full["step_ratio"] == pytest.approx(full["step_ms"] / plain["step_ms"])
    assert plain["exit_parameters"] == plain["exit_multiply_adds"] == 0
    assert min(full["exit_parameters"], full["exit_multiply_adds"], full["inference_ms"]) > 0
    for key in ("parameters", "multiply_adds"):
        assert plain[key] == full[key] > 0


def test_a_step_trains_what_is_not_frozen_with_every_loss_term() -> None:
    config = replace(SMALL, batch=3, crop=32, frozen_blocks=1, lr=0.1, poly=0.0)
    assert sr_strength(PROGRESS, start=0.99, ramp=0.01) > 0.99
    network = tiny_multi_exit(classes=3)
    before = {name: value.clone() for name, value in network.named_parameters()}
    step = training_step(
        network,
        made_up_batch(config, 2, device=CPU),
        config,
        weight_seg=0.8,
        device=CPU,
        precision=torch.float32,
    )
    step()
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    inside = {name: name.split("features.blocks.")[-1] for name in before if "features" in name}
    frozen = {name for name, path in inside.items() if path.startswith("0.") or path[2:].startswith("1.")}
    assert moved == set(before) - frozen  # BatchNorm is frozen in every block


def test_made_up_images_have_tags_labels_and_255() -> None:
    batch = made_up_batch(SMALL, 4, device=CPU)
    assert batch.images.shape == (2, 3, 32, 32)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert bool(batch.tags.any(1).all())
    assert batch.labels is not None
    assert set(batch.labels.flatten().tolist()) == {0, 1, 2, 3, 4, 255}


def test_prediction_runs_the_deployed_network() -> None:
    network = tiny_multi_exit(classes=3).train()
    prediction(network.deploy(), torch.rand(1, 3, 32, 32), device=CPU, precision=torch.bfloat16)()
    assert not network.plain.training
