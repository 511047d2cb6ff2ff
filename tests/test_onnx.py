"""The exported network: onnxruntime against torch, metadata, and prediction without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from data.images import read_mask
from run_pipeline import EXIT_USER_ERROR, main
from stages.commands.predict.predictors import RunPredictor, run_settings
from stages.training import training_network
from stages.workspace import open_run
from tests.networks import CHANNELS, tiny_backbone, tiny_segmenter
from tests.products import Product
from wsss.config import SegmentConfig
from wsss.model.heads import AsppHead
from wsss.model.multi_exit import PlainNetwork
from wsss.model.onnx import onnx_model

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
SIZES = [(1, 64, 64), (2, 97, 131), (1, 33, 200), (3, 17, 18), (1, 1, 1)]


@pytest.fixture(scope="module")
def model(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx")
    assert main(product.arguments("export", "tiny", "--format", "onnx", "--out", out)) == 0
    return out / "model.onnx"


def check_equal(session: onnxruntime.InferenceSession, network: PlainNetwork) -> None:
    torch.manual_seed(0)
    for batch, height, width in SIZES:
        images = torch.rand(batch, 3, height, width)
        with torch.inference_mode():
            maps = network(images)
            expected = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False).numpy()
        logits, found = session.run(["logits", "maps"], {"images": images.numpy()})
        np.testing.assert_allclose(found, maps.numpy(), atol=1e-4)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.999


def test_onnxruntime_equals_torch_at_any_batch_and_size(product: Product, model: Path) -> None:
    run = open_run(product.workspace, "tiny")
    predictor = RunPredictor(run, run_settings(run.config))
    predictor.load()
    check_equal(onnxruntime.InferenceSession(model), predictor.network)


def test_networks_without_same_padding_are_exported_too() -> None:
    network = PlainNetwork(tiny_backbone(), AsppHead(CHANNELS[-1], 4)).eval()
    content = onnx_model(network, {"a": "b"})
    assert content.SerializeToString(deterministic=True) == onnx_model(network, {"a": "b"}).SerializeToString(
        deterministic=True
    )
    check_equal(onnxruntime.InferenceSession(content.SerializeToString()), network)


HRNET = SegmentConfig(
    backbone="hrnet_w18_small", weights="none", output_stride=32, head="ocr", head_channels=16
)


@pytest.mark.parametrize("kind", ["ushape", "hrnet"])
def test_other_structures_are_exported_too(kind: str) -> None:
    ushape = tiny_segmenter(3, structure="ushape")
    network = (ushape if kind == "ushape" else training_network(HRNET, 2, "segment").deploy()).eval()
    content = onnx_model(network, {})
    check_equal(onnxruntime.InferenceSession(content.SerializeToString()), network)


def test_the_model_says_what_it_is(product: Product, model: Path) -> None:
    loaded = onnx.load(model)
    onnx.checker.check_model(loaded, full_check=True)
    assert next(item.version for item in loaded.opset_import if not item.domain) >= 17
    metadata = {item.key: item.value for item in loaded.metadata_props}
    assert json.loads(metadata["classes"]) == ["disc", "square", "diamond"]
    assert json.loads(metadata["scale"]) == 1 / 255
    assert [len(json.loads(metadata[key])) for key in ("mean", "std")] == [3, 3]
    assert json.loads(metadata["fingerprint"]) == product.artifact("segment").fingerprint
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*loaded.graph.input, *loaded.graph.output]
    }
    assert dims == {
        "images": ["batch", 3, "height", "width"],
        "logits": ["batch", 4, "height", "width"],
        "maps": ["batch", 4, "map_height", "map_width"],
    }
    content = model.read_bytes()
    for place in (str(ROOT), "site-packages", str(Path.home())):
        assert place.encode() not in content


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "torchvision"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import run_pipeline
sys.exit(run_pipeline.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("options", [[], ["--scales", "0.75,1", "--flip"]])
def test_predict_without_torch_gives_the_same_masks(
    product: Product, model: Path, tmp_path: Path, options: list[str]
) -> None:
    common = [str(product.images), *options, "--out"]
    assert (
        main(product.arguments("predict", *options, "--out", tmp_path / "torch", "tiny", product.images)) == 0
    )
    command = [
        sys.executable,
        "-c",
        BLOCKED,
        "predict",
        "--onnx",
        str(model),
        *common,
        str(tmp_path / "onnx"),
    ]
    # Elsewhere: no workspace there.
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    pixels = wrong = 0
    for expected in sorted((tmp_path / "torch").glob("*.png")):
        masks = [read_mask(expected), read_mask(tmp_path / "onnx" / expected.name)]
        pixels += masks[0].size
        wrong += int((masks[0] != masks[1]).sum())
    assert pixels == 9 * 60 * 88
    assert wrong <= pixels / 1000


def test_a_model_of_another_program_is_refused(
    product: Product, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = onnx.load(model)
    del loaded.metadata_props[:]
    onnx.save(loaded, tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    whole = model.read_bytes()
    (tmp_path / "damaged.onnx").write_bytes(whole.replace(b'"square"', b'"squ\xffre"'))
    assert (tmp_path / "damaged.onnx").read_bytes() != whole
    for name, part in (
        ("foreign.onnx", "lacks the metadata"),
        ("text.onnx", "cannot be loaded"),
        ("damaged.onnx", "its metadata is missing or damaged"),
    ):
        command = [
            "predict",
            "--onnx",
            str(tmp_path / name),
            str(product.images),
            "--out",
            str(tmp_path / "out"),
        ]
        assert main(command) == EXIT_USER_ERROR
        assert part in capsys.readouterr().err


@pytest.mark.parametrize(("package", "command"), [("onnxruntime", "predict"), ("onnxscript", "export")])
def test_missing_packages_are_named(
    product: Product,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    package: str,
    command: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    arguments = {
        "predict": ["predict", "--onnx", str(model), str(product.images), "--out", str(tmp_path / "out")],
        "export": product.arguments("export", "tiny", "--format", "onnx", "--out", tmp_path / "out"),
    }
    assert main(arguments[command]) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert f"needs the package {package}" in message
    assert "pip install" in message
