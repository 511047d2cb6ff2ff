"""What each variant's segmentation network costs: training step, prediction, parameters, multiply-adds."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

from stages.training import training_network
from wsss.config import Config
from wsss.cost import (
    interleaved_seconds,
    made_up_batch,
    median_ratios,
    network_cost,
    prediction,
    training_step,
)
from wsss.runtime.device import choose_device, choose_precision


def variant_costs(
    configs: Mapping[str, Config], classes: int, *, rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Measure the variants side by side, on noise, with self-regulation on where a variant has it.

    Args:
        configs: by name of the variant; the first is what the others are compared with.
        classes: C, foreground classes.
        rounds: how often each variant's training step and prediction are timed, at least 1.

    Returns:
        By variant: ``step_ms`` (median) and ``step_ratio`` (median over rounds of the ratio to the first) of a
        training step of the configured batch, ``inference_ms`` of the deployed network on one image of the
        crop's size, ``parameters`` and ``multiply_adds`` of the deployed network (one image of the crop's size,
        forward), ``exit_parameters`` and ``exit_multiply_adds`` of what training adds.

    Raises:
        UserError: a device, backbone or exit that cannot be had.
        ValueError: no variant or no round.
    """
    trials = {name: _Trial(config, classes) for name, config in configs.items()}
    stepping = interleaved_seconds({name: trial.step() for name, trial in trials.items()}, rounds=rounds)
    predicting = interleaved_seconds({name: trial.predict() for name, trial in trials.items()}, rounds=rounds)
    ratios = median_ratios(stepping)
    return {
        name: {
            "step_ms": 1000 * statistics.median(stepping[name]),
            "step_ratio": ratios[name],
            "inference_ms": 1000 * statistics.median(predicting[name]),
            **trial.counts(),
        }
        for name, trial in trials.items()
    }


class _Trial:
    """A variant's segmentation network, untrained, with made-up images."""

    def __init__(self, config: Config, classes: int) -> None:
        self.config = config.segment
        self.device = choose_device(config.run.device)
        self.precision = choose_precision(config.run, self.device)
        self.network = training_network(replace(self.config, weights="none"), classes, "segment")
        self.batch = made_up_batch(self.config, classes, device=self.device, seed=config.seed)

    def step(self) -> Callable[[], None]:
        return training_step(
            self.network,
            self.batch,
            self.config,
            weight_seg=self.config.weight_seg,
            device=self.device,
            precision=self.precision,
        )

    def predict(self) -> Callable[[], None]:
        one = self.batch.images[:1]
        return prediction(self.network.deploy(), one, device=self.device, precision=self.precision)

    def counts(self) -> dict[str, float]:
        cost = network_cost(self.network, height=self.config.crop, width=self.config.crop)
        return {name: float(count) for name, count in dataclasses.asdict(cost).items()}
