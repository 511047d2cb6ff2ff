"""The training loop: schedule, order, freezing, checkpoint and resume, refusal of non-finite losses."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks import tiny_multi_exit
from wsss import train as training
from wsss.config import ClassifyConfig, SegmentConfig, TrainConfig
from wsss.errors import UserError
from wsss.losses import segmentation_loss
from wsss.model.multi_exit import ExitOutputs
from wsss.runtime import interrupt
from wsss.runtime.interrupt import Interrupted
from wsss.store.artifacts import Stamp
from wsss.train import (
    Batch,
    Criterion,
    Training,
    batch_indices,
    depthwise_in_float32,
    exit_counts,
    make_optimizer,
    prepare,
    set_learning_rate,
    train,
)

CPU = torch.device("cpu")
CONFIG = ClassifyConfig(batch=4, lr=0.01, head_lr=2.0, optimizer="adamw")
STAMP = Stamp(stage="classify", version=1, seed=0, data="d", config={}, inputs={})


def batch(step: int, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(size, 3, 32, 32, generator=generator)
    tags = (torch.rand(size, 2, generator=generator) < 0.5).float()
    return Batch([f"{step}-{i}" for i in range(size)], images, tags, None)


def job(path: Path, steps: int = 6, config: TrainConfig = CONFIG, **changes: Any) -> Training:
    def batches(first: int) -> Iterator[Batch]:
        return (batch(step) for step in range(first, steps))

    made = Training(
        config=config,
        steps=steps,
        steps_per_epoch=2,
        batches=batches,
        checkpoint=path / "c.h5",
        stamp=STAMP,
        log=lambda _: None,
    )
    return replace(made, **changes)


def weights(trained: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.state_dict().items()}


def assert_bit_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(
    "changes", [{"optimizer": "sgd"}, {"sr_bar": 0.2}], ids=lambda changes: next(iter(changes))
)
def test_training_resumed_after_a_stop_is_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    config = replace(CONFIG, freeze_bn=False, **changes)
    whole = tiny_multi_exit(2)
    train(whole, job(tmp_path / "a", config=config), device=CPU, precision=torch.float32)

    asked = iter([False, False, True])  # once per step: stop after the third
    monkeypatch.setattr(training, "requested", lambda: next(asked))
    stopped = tiny_multi_exit(2)
    with pytest.raises(Interrupted):
        train(stopped, job(tmp_path / "b", config=config), device=CPU, precision=torch.float32)
    monkeypatch.setattr(training, "requested", lambda: False)
    first_steps: list[int] = []

    def batches(first: int) -> Iterator[Batch]:
        first_steps.append(first)
        return (batch(step) for step in range(first, 6))

    resumed = tiny_multi_exit(2, seed=77)  # its own weights must not matter
    train(resumed, job(tmp_path / "b", config=config, batches=batches), device=CPU, precision=torch.float32)
    assert first_steps == [3]
    assert_bit_equal(weights(whole), weights(resumed))


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "requested", lambda: True)
    other = job(tmp_path, stamp=replace(STAMP, seed=9))
    with pytest.raises(Interrupted):
        train(tiny_multi_exit(2), other, device=CPU, precision=torch.float32)
    assert other.checkpoint.exists()
    monkeypatch.setattr(training, "requested", lambda: False)
    again, fresh = tiny_multi_exit(2), tiny_multi_exit(2)
    train(again, job(tmp_path), device=CPU, precision=torch.float32)
    train(fresh, job(tmp_path / "new"), device=CPU, precision=torch.float32)
    assert_bit_equal(weights(again), weights(fresh))


def test_training_learns_and_logs_every_epoch(tmp_path: Path) -> None:
    logged: list[dict[str, float]] = []
    config = replace(CONFIG, lr=0.01, poly=0.0)

    def batches(first: int) -> Iterator[Batch]:
        return (batch(0) for _ in range(first, 40))

    train(
        tiny_multi_exit(2),
        job(tmp_path, 40, config, batches=batches, log=logged.append),
        device=CPU,
        precision=torch.float32,
    )
    assert [event["epoch"] for event in logged] == list(range(1, 21))
    assert logged[-1]["cls"] < 0.5 * logged[0]["cls"]
    assert "sr_f" not in logged[0]
    assert {"cls", "sr_f", "sr_l"} < set(logged[-1])


def test_exits_teach_from_the_step_on_at_which_they_pass_the_bar(tmp_path: Path) -> None:
    logged: list[dict[str, float]] = []
    config = replace(CONFIG, lr=0.01, poly=0.0, sr_start=0.0, sr_bar=0.9, weight_sr_f=0.0)

    def batches(first: int) -> Iterator[Batch]:
        return (batch(0) for _ in range(first, 60))

    network = tiny_multi_exit(2)
    train(
        network,
        job(tmp_path, 60, config, batches=batches, log=logged.append, steps_per_epoch=1),
        device=CPU,
        precision=torch.float32,
    )
    began = {event["teaches"]: event["step"] for event in logged if "teaches" in event}
    assert 4 in began, "the deepest exit has learned one batch by heart"
    epochs = [event for event in logged if "epoch" in event]
    assert {"cls", "exit1.miou", "exit4.miou", "exit4.found"} < set(epochs[0])
    first = next(event["epoch"] for event in epochs if "sr_l" in event)
    assert first == began[4] + 1
    assert epochs[int(began[4]) - 1]["exit4.miou"] >= 0.9 > epochs[int(began[4]) - 2]["exit4.miou"]
    assert network.teaches.tolist() == [int(block in began) for block in (1, 2, 3, 4)]


def test_what_exits_know_is_counted_one_by_one() -> None:
    outputs = tiny_multi_exit(3)(torch.rand(2, 3, 48, 32))
    outputs.class_maps[-1] = torch.rand(2, 3, 24, 16)
    labels = torch.randint(0, 4, (2, 48, 32)).to(torch.uint8)
    labels[labels == 3] = 255
    tags = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    known = exit_counts(outputs, tags, labels, SegmentConfig())
    named = exit_counts(ExitOutputs([maps[:, 1:] for maps in outputs.class_maps]), tags, None, CONFIG)
    for index, maps in enumerate(outputs.class_maps):
        wanted, (_, _, h, w) = np.zeros((3, 3)), maps.shape
        step = 4 if index == 3 else 1  # the last one's cells have 2 pixels, the others' 8
        for b, y, x in product(range(2), range(0, h, step), range(0, w, step)):
            label, found = (
                int(labels[b, (2 * y + 1) * 24 // h, (2 * x + 1) * 16 // w]),
                int(maps[b, :, y, x].argmax()),
            )
            if label != 255:
                wanted[label] += [label == found, 1, 0]
                wanted[found, 2] += 1
        assert known[index].tolist() == wanted.tolist()
        says = maps[:, 1:].mean((2, 3)) > 0
        for tag in range(2):
            both = int((says[:, tag] & (tags[:, tag] > 0)).sum())
            assert named[index, tag].tolist() == [both, int(tags[:, tag].sum()), int(says[:, tag].sum())]


def test_further_scales_are_views_of_the_same_images() -> None:
    network, config = (
        tiny_multi_exit(3).eval(),
        SegmentConfig(loss_scales=(0.5, 1.0), weight_cls=0.0, mea=False),
    )
    given = replace(batch(0), labels=torch.randint(0, 3, (4, 32, 32)))
    images = given.images.contiguous(memory_format=torch.channels_last)
    half = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
    own = network.plain(images)
    assert given.labels is not None
    wanted = segmentation_loss(
        [own, network.plain(half), own, torch.maximum(own, network.plain(half).expand_as(own))], given.labels
    )
    terms = Criterion(network, config, CPU, torch.float32)(given, 0.0)
    assert float(terms["seg"].detach()) == pytest.approx(0.8 * float(wanted.detach()), rel=1e-5)


def test_a_non_finite_loss_stops_with_step_and_images(tmp_path: Path) -> None:
    def batches(_: int) -> Iterator[Batch]:
        yield batch(0)
        broken = batch(1)
        broken.images[0] = float("nan")
        yield broken

    with pytest.raises(UserError, match=r"step 2 of 6.*1-0, 1-1.*\n.*classify\.lr"):
        train(tiny_multi_exit(2), job(tmp_path, batches=batches), device=CPU, precision=torch.float32)


def test_frozen_batch_norm_keeps_statistics_and_affine_parameters(tmp_path: Path) -> None:
    trained = tiny_multi_exit(2)
    before = weights(trained)
    train(trained, job(tmp_path), device=CPU, precision=torch.float32)
    after = weights(trained)
    norms = [name for name in before if re.search(r"features\.blocks\.\d\.1\.", name)]
    assert norms
    assert all(torch.equal(before[name], after[name]) for name in norms)
    convolutions = [name for name in before if name.endswith("features.blocks.0.0.weight")]
    assert not torch.equal(before[convolutions[0]], after[convolutions[0]])


def test_batch_norm_trains_when_not_frozen() -> None:
    trained = tiny_multi_exit(2)
    prepare(trained, replace(CONFIG, freeze_bn=False), CPU)
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert all(module.training for module in trained.modules())


def test_heads_learn_at_their_own_rate_by_the_polynomial_schedule() -> None:
    config = replace(CONFIG, lr=0.1, head_lr=10.0, poly=0.9, lr_warmup=0.2)
    made = tiny_multi_exit(2)
    prepare(made, config, CPU)
    optimizer = make_optimizer(made, config)
    counts = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    backbone = sum(p.numel() for p in made.plain.backbone.parameters() if p.requires_grad)
    assert counts == [backbone, sum(p.numel() for p in made.parameters() if p.requires_grad) - backbone]
    for progress, factor in ((0.0, 0.0), (0.1, 0.5 * 0.9**0.9), (0.5, 0.5**0.9), (0.99, 0.01**0.9)):
        set_learning_rate(optimizer, config, progress)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * factor, factor])


def test_every_image_is_seen_once_an_epoch_in_a_new_order() -> None:
    epochs = list(batch_indices(12, 4, 0, 0, 6))
    assert all(len(keys) == 4 for keys in epochs)
    first = [index for keys in epochs[:3] for epoch, index in keys]
    second = [index for keys in epochs[3:] for epoch, index in keys]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert list(batch_indices(12, 4, 0, 4, 6)) == epochs[4:]
    assert list(batch_indices(12, 4, 1, 0, 6)) != epochs


def test_fewer_images_than_a_batch_make_whole_set_batches() -> None:
    assert [sorted(i for _, i in keys) for keys in batch_indices(3, 8, 0, 0, 2)] == [[0, 1, 2], [0, 1, 2]]


def test_the_first_signal_asks_and_the_second_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_requested", False)
    interrupt.check()
    interrupt._ask(2, None)
    assert interrupt.requested()
    with pytest.raises(Interrupted):
        interrupt.check()
    with pytest.raises(KeyboardInterrupt):
        interrupt._ask(2, None)


def test_step_seeds_differ() -> None:
    seeds = {training.step_seed(seed, step) for seed in range(3) for step in range(50)}
    assert len(seeds) == 150
    assert np.all(np.array(sorted(seeds)) >= 0)


def test_frozen_blocks_keep_their_weights_and_the_others_learn(tmp_path: Path) -> None:
    trained = tiny_multi_exit(2)
    before = weights(trained)
    config = replace(CONFIG, freeze_bn=False, frozen_blocks=2)
    train(trained, job(tmp_path, config=config), device=CPU, precision=torch.float32)
    after = weights(trained)
    for block in range(4):
        kept = torch.equal(before[name := f"plain.backbone.features.blocks.{block}.0.weight"], after[name])
        assert kept == (block < 2)
    assert not torch.equal(before["exits.0.classifier.weight"], after["exits.0.classifier.weight"])


@pytest.mark.slow
def test_a_compiled_network_trains_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real front end, and no C++ compiler behind it, which would take a minute."""
    real, graphs = torch.compile, []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda network, **more: real(network, backend=backend, **more))
    plain, compiled = tiny_multi_exit(2), tiny_multi_exit(2)
    train(plain, job(tmp_path / "plain"), device=CPU, precision=torch.float32)
    train(compiled, job(tmp_path / "compiled", compile=True), device=CPU, precision=torch.float32)
    assert graphs
    assert "not possible" not in capsys.readouterr().out
    for name, value in weights(plain).items():
        torch.testing.assert_close(compiled.state_dict()[name], value)


@pytest.mark.slow
def test_training_continues_where_compiling_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def backend(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **more: real(network, backend=backend, **more))
    plain, kept = tiny_multi_exit(2), tiny_multi_exit(2)
    train(plain, job(tmp_path / "plain"), device=CPU, precision=torch.float32)
    train(kept, job(tmp_path / "kept", compile=True), device=CPU, precision=torch.float32)
    said = capsys.readouterr().out
    assert said.count("run.compile: not possible here") == 1
    assert "no C++ compiler" in said
    assert_bit_equal(weights(plain), weights(kept))


def test_depthwise_convolutions_that_learn_leave_autocast_and_nothing_else_does() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=4))
    network[2].requires_grad_(requires_grad=False)
    images = torch.rand(1, 4, 5, 5)
    found: list[torch.dtype] = []
    for layer in network:
        layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        with depthwise_in_float32(network):
            network(images)
        network(images)
    assert found == [torch.float32, *[torch.bfloat16] * 5]
