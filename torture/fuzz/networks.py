"""Artifacts, checkpoints, weight files and exported networks, all tiny."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsss.store.artifacts import Artifact, Stamp, write_artifact

Attempt = Callable[[], object]
STAMP = Stamp(
    stage="classify", version=1, seed=0, data="d", config={"a": 1}, inputs={}, classes=("cat", "größer als")
)


def artifact(file: Path) -> tuple[list[bytes], Attempt]:
    """An artifact with images and networks; read as a whole."""
    random = np.random.default_rng(0)
    images = [
        (
            name,
            {
                "maps": random.random((2, 5, 4)).astype(np.float16),
                "masks": random.integers(0, 9, (6, 7), np.uint8),
            },
        )
        for name in ("a", "b/c", "größer")
    ]
    groups = {"network": {"weight": random.random((3, 4)).astype(np.float32), "steps": np.asarray(7)}}
    write_artifact(file, STAMP, groups=groups, images=images)

    def attempt() -> object:
        found = Artifact(file)
        found.group("network")
        for image_id in found.ids:
            for name in ("maps", "masks"):
                found.read(image_id, name)
        found.close()
        return found

    return [file.read_bytes()], attempt


def checkpoint(folder: Path) -> tuple[bytes, Attempt]:
    """A checkpoint of a tiny network; training goes on from it, or begins anew."""
    import torch

    from tests.networks import tiny_multi_exit
    from tests.test_train import job
    from wsss.train import train

    torch.set_num_threads(1)
    work = job(folder, steps=2, checkpoint=folder / "a.h5.checkpoint")

    def attempt() -> object:
        train(tiny_multi_exit(2), work, device=torch.device("cpu"), precision=torch.float32)
        return None

    attempt()
    return work.checkpoint.read_bytes(), attempt


def deployed(file: Path) -> tuple[bytes, Attempt]:
    """A deployed network; loaded as `predict` does."""
    import torch

    import wsss.runtime.torchvision_guard  # noqa: F401 - must come before timm
    from stages.training import load_deployed, network_groups, training_network
    from wsss.config import ClassifyConfig

    torch.set_num_threads(1)
    config = ClassifyConfig(backbone="test_resnet", weights="none", output_stride=32, exits=(2, 4))
    write_artifact(file, STAMP, groups=network_groups(training_network(config, 2, "classify")))
    return file.read_bytes(), lambda: load_deployed(file, config, 2, torch.device("cpu"))


def weights(file: Path, *, safe: bool) -> tuple[list[bytes], Attempt]:
    """A state dict with timm's names as .safetensors, or as .pth in torch's two forms; a backbone is made of it."""
    import torch

    import wsss.runtime.torchvision_guard  # noqa: F401 - must come before timm
    from wsss.model.backbone import create_backbone

    import timm  # isort: skip
    from safetensors.torch import save

    torch.set_num_threads(1)
    state = timm.create_model("test_resnet").state_dict()
    seeds = []
    if safe:
        seeds.append(save(state))
    else:
        for zipped in (True, False):
            torch.save(state, file, _use_new_zipfile_serialization=zipped)
            seeds.append(file.read_bytes())
    return seeds, lambda: create_backbone("test_resnet", weights=str(file), output_stride=32)


def onnx_model(file: Path) -> tuple[list[bytes], Attempt]:
    """A network of one convolution with the metadata of an export; loaded, and run on a small image."""
    from onnx import TensorProto, helper

    from stages.commands.predict.predictors import METADATA_SCHEMA, OnnxPredictor

    weight = helper.make_tensor("w", TensorProto.FLOAT, (3, 3, 4, 4), np.linspace(-1, 1, 144).tolist())
    node = helper.make_node("Conv", ["images", "w"], ["maps"], strides=[4, 4], auto_pad="SAME_UPPER")
    shape: list[str | int | None] = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        [node],
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["batch", 3, "h", "w"])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    values = {
        "classes": ["cat", "dog"], "mean": [0.5] * 3, "std": [0.2] * 3, "scale": 1 / 255, "stride": 4,
        "fingerprint": "f", "run": "r", "scales": [1.0], "flip": True, "max_side": 64, "crf_max_side": 64,
    }  # fmt: skip
    helper.set_model_props(
        model, {key: json.dumps(value) for key, value in values.items()} | {"wsss": METADATA_SCHEMA}
    )

    def attempt() -> object:
        return OnnxPredictor(file).labels(np.zeros((9, 13, 3), np.uint8), None)

    return [model.SerializeToString()], attempt
