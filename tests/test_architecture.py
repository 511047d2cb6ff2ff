"""The house rules that a reader relies on: direction of imports, single importers, nothing unpickled."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("wsss", "data", "stages", "run_pipeline")


def sources() -> list[Path]:
    files = [ROOT / "run_pipeline.py"]
    for package in ("wsss", "stages", "data"):
        files += sorted((ROOT / package).rglob("*.py"))
    return [file for file in files if "sample" not in file.parts]


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def layer(name: str) -> int | None:
    top = name.split(".")[0]
    return LAYERS.index(top) if top in LAYERS else None


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_downwards(file: Path) -> None:
    own = layer(file.relative_to(ROOT).with_suffix("").parts[0])
    assert own is not None
    for name in imports(file):
        other = layer(name)
        surface = file == ROOT / "wsss" / "__init__.py" and name.startswith(
            "stages.commands.predict.predictors"
        )
        assert other is None or other <= own or surface, f"{file.name} imports {name}"


def test_stages_do_not_import_each_other() -> None:
    names = {"classify", "cams", "refine", "segment"}
    for name in names:
        for imported in imports(ROOT / "stages" / f"{name}.py"):
            parts = imported.split(".")
            assert not (parts[0] == "stages" and len(parts) > 1 and parts[1] in names), f"{name}: {imported}"


def test_no_stage_reads_measures_that_know_the_truth() -> None:
    for name in ("__init__", "training", "classify", "cams", "refine", "segment"):
        found = imports(ROOT / "stages" / f"{name}.py")
        assert not any(imported.startswith("stages.commands.report") for imported in found), name


@pytest.mark.parametrize(
    ("library", "owner"),
    [
        ("h5py", "artifacts.py"),
        ("pydensecrf", "crf.py"),
        ("onnxruntime", "predictors.py"),
        ("onnxscript", "onnx.py"),
    ],
)
def test_a_library_has_one_importer(library: str, owner: str) -> None:
    importers = [file.name for file in sources() if any(i.split(".")[0] == library for i in imports(file))]
    assert importers == [owner]


def test_nothing_is_unpickled_and_no_device_is_assumed() -> None:
    for file in sources():
        text = file.read_text(encoding="utf-8")
        assert not {"pickle", "dill", "joblib"} & {name.split(".")[0] for name in imports(file)}, file
        assert ".cuda()" not in text, file
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{file}: {line}"


def test_files_stay_readable() -> None:
    assert not (ROOT / "wsss" / "utils.py").exists()
    for file in sources():
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 600, file
