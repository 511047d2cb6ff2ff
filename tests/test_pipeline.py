"""The whole pipeline on tiny data: caching, what each change recomputes, blindness to masks, same bits twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import STAGE_NAMES
from stages.commands.run import run_all, run_prune, run_stage, show_status
from stages.commands.session import Request, open_session
from stages.workspace import Workspace, open_run
from tests.pipelines import hashes, request
from tests.trees import make_folder_tree
from wsss.config import DataConfig
from wsss.errors import UserError
from wsss.runtime import device
from wsss.store.artifacts import Artifact, DamagedArtifactError
from wsss.store.files import temporary_path

pytestmark = pytest.mark.slow


def computed_stages(before: dict[str, str], after: dict[str, str]) -> list[str]:
    new = {key.split("/")[1] for key in after.keys() - before.keys()}
    return [stage for stage in STAGE_NAMES if stage in new]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return make_folder_tree(tmp_path_factory.mktemp("data"), n_train=6, n_val=3)


@pytest.fixture(scope="module")
def finished(data: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the whole pipeline has run once."""
    workspace = tmp_path_factory.mktemp("workspace")
    run_all(request(data, workspace))
    return workspace


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A private copy of the finished workspace."""
    return Path(shutil.copytree(finished, tmp_path / "ws"))


def test_a_run_leaves_artifacts_records_and_pictures(finished: Path, data: DataConfig) -> None:
    assert [key.split("/")[1] for key in hashes(finished)] == sorted(STAGE_NAMES)
    record = json.loads((finished / "tiny" / "run.json").read_text())
    assert list(record["stages"]) == list(STAGE_NAMES)
    assert record["stages"]["cams"]["scores"]["threshold_chosen_by"].startswith("the configuration")
    assert 0 <= record["stages"]["segment"]["scores"]["miou"] <= 1
    with Image.open(finished / "tiny" / "overview.png") as picture:
        assert picture.width > 1000
    events = [json.loads(line) for line in (finished / "tiny" / "log.jsonl").read_text().splitlines()]
    assert {event["stage"] for event in events} == set(STAGE_NAMES)
    assert not list(finished.rglob("*.tmp-*"))
    assert not list(finished.rglob("*.checkpoint"))
    assert not list(finished.rglob("*.parts"))
    session = open_session(request(data, finished))
    masks = Artifact(session.planned["refine"].path)
    for sample in session.dataset.split("train").samples:
        mask, labels = masks.read(sample.id, "masks"), masks.read(sample.id, "labels")
        assert mask.shape == sample.size
        assert mask.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, *(tag + 1 for tag in sample.tags)}  # tagged classes alone
        assert ((mask == labels) | (mask == 255)).all()
        cams = Artifact(session.planned["cams"].path)
        assert cams.read(sample.id, "classes").tolist() == list(sample.tags)
        assert cams.read(sample.id, "maps").dtype == np.float16


def test_a_second_run_computes_nothing(
    workspace: Path, data: DataConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(workspace)
    times = {path: path.stat().st_mtime_ns for path in (workspace / "artifacts").rglob("*.h5")}
    run_all(request(data, workspace))
    assert hashes(workspace) == before
    assert times == {path: path.stat().st_mtime_ns for path in (workspace / "artifacts").rglob("*.h5")}
    assert capsys.readouterr().out.count(": cached") == 4


@pytest.mark.parametrize(
    ("change", "recomputed"),
    [
        ("refine.preset=psa", ["refine", "segment"]),
        ("refine.method=local", ["refine", "segment"]),
        ("cams.flip=false", ["cams", "refine", "segment"]),
        ("segment.weight_sr_f=0", ["segment"]),
        ("segment.supervision=full", ["segment"]),
        ("seed=1", list(STAGE_NAMES)),
    ],
)
def test_a_change_recomputes_what_depends_on_it(
    finished: Path, data: DataConfig, change: str, recomputed: list[str]
) -> None:
    planned = open_session(request(data, finished, change)).planned
    assert [name for name, item in planned.items() if not item.cached] == recomputed


def test_stage_forced_computes_itself_alone(workspace: Path, data: DataConfig) -> None:
    before = hashes(workspace)
    times = {path: path.stat().st_mtime_ns for path in (workspace / "artifacts").rglob("*.h5")}
    run_stage(request(data, workspace), "cams", force=True)
    touched = {path.parent.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert touched == {"cams"}
    assert hashes(workspace) == before  # the same bits again


def test_a_stage_is_rerun_from_its_runs_own_configuration(workspace: Path, data: DataConfig) -> None:
    before = hashes(workspace)
    alone = Request(config=None, overrides=["refine.preset=psa"], name="tiny", workspace=workspace)
    run_stage(alone, "refine", force=False)
    after = hashes(workspace)
    assert computed_stages(before, after) == ["refine"]
    assert before.items() <= after.items()  # nothing is overwritten


def test_a_stage_without_its_input_says_what_to_do(tmp_path: Path, data: DataConfig) -> None:
    with pytest.raises(UserError, match=r"stage refine needs the result of cams.*`run`.*`stage cams`"):
        run_stage(request(data, tmp_path), "refine", force=False)


def test_full_supervision_has_no_weak_stages(tmp_path: Path, data: DataConfig) -> None:
    with pytest.raises(UserError, match=r"stage cams is not part.*'full'"):
        run_stage(request(data, tmp_path, "segment.supervision=full"), "cams", force=False)


def test_deleting_the_training_masks_changes_no_weak_artifact(
    finished: Path, data: DataConfig, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(data.root, tmp_path / "data"))
    for sample in open_session(request(data, finished)).dataset.split("train").samples:
        assert sample.mask is not None
        (moved / sample.mask.file.relative_to(data.root)).unlink()
    other = DataConfig(source=data.source, root=str(moved))
    run_all(request(other, tmp_path / "ws"))
    assert hashes(tmp_path / "ws") == hashes(finished)  # segment too: pseudo-masks are all it learns from


def test_status_says_what_would_run_and_why(
    workspace: Path, data: DataConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(request(data, workspace, "refine.preset=psa"))
    lines = capsys.readouterr().out.splitlines()
    assert [("would run" in line) for line in lines] == [False, False, True, True]
    assert "config.preset: irn -> psa" in lines[2]
    assert "inputs.refine" in lines[3]
    show_status(request(data, workspace, name="other"))
    assert "cached" in capsys.readouterr().out


def as_if(monkeypatch: pytest.MonkeyPatch, folder: Path, *, bf16: bool) -> None:
    """Pretend that this processor computes bfloat16, or not."""
    (folder / "cpuinfo").write_text("flags : avx512_bf16" if bf16 else "flags : fpu")
    monkeypatch.setattr(device, "_CPUINFO", folder / "cpuinfo")


def test_precision_is_decided_before_results_get_their_names(
    workspace: Path,
    data: DataConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def names(*changes: str) -> dict[str, str]:
        planned = open_session(request(data, workspace, *changes)).planned
        return {name: item.stamp.fingerprint for name, item in planned.items()}

    forced = {precision: names(f"run.precision={precision}") for precision in ("fp32", "bf16")}
    assert not set(forced["fp32"].values()) & set(forced["bf16"].values())
    for precision in ("fp32", "bf16"):
        as_if(monkeypatch, workspace, bf16=precision == "bf16")
        assert names("run.precision=auto") == forced[precision]
    as_if(monkeypatch, workspace, bf16=False)
    assert names("refine.preset=psa")["cams"] == names()["cams"]  # the run's own configuration says which
    ran = open_session(Request(None, [], "tiny", workspace)).config.run.precision
    assert f'precision = "{ran}"' in (workspace / "tiny" / "config.toml").read_text()
    other = {"fp32": "bf16", "bf16": "fp32"}[ran]
    as_if(monkeypatch, workspace, bf16=other == "bf16")
    capsys.readouterr()
    show_status(Request(None, ["run.precision=auto"], "tiny", workspace))
    lines = capsys.readouterr().out.splitlines()
    assert [f"precision: {ran} -> {other}" in line for line in lines] == [True, True, False, True]
    assert all("would run" in line for line in lines)
    show_status(Request(None, [], "tiny", workspace))  # another machine uses what the run used
    assert capsys.readouterr().out.count("cached") == 4


def test_a_workspace_of_an_earlier_version_is_computed_from_scratch(
    workspace: Path, data: DataConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    file = workspace / "tiny" / "run.json"
    record = json.loads(file.read_text())
    for stage, entry in record["stages"].items():
        entry["material"]["schema"] = 1
        folder = workspace / "artifacts" / stage
        for path in folder.glob("*.h5"):
            path.rename(folder / f"{'0' * 16}.h5")
        entry["fingerprint"] = "0" * 16
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"earlier version.*from scratch"):
        open_run(workspace, "tiny").artifact("segment")
    run_all(request(data, workspace))
    assert "earlier version of this program; they are computed from scratch" in capsys.readouterr().out
    open_run(workspace, "tiny").artifact("segment").close()


def test_status_holds_every_artifact_against_its_checksum(workspace: Path, data: DataConfig) -> None:
    show_status(request(data, workspace), check=True)
    victim = next((workspace / "artifacts" / "refine").glob("*.h5"))
    whole = bytearray(victim.read_bytes())
    whole[len(whole) // 2] ^= 1
    victim.write_bytes(whole)
    with pytest.raises(DamagedArtifactError, match=victim.name):
        show_status(request(data, workspace), check=True)


def test_prune_removes_what_no_run_names(
    workspace: Path, data: DataConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(workspace)
    run_all(request(data, workspace, "refine.preset=psa"))  # the run names other artifacts now
    stale = workspace / "artifacts" / "cams" / "0123456789abcdef.h5.tmp-1"
    stale.write_bytes(b"x")
    other = workspace / "a run.lock"  # a name that a run may have
    other.mkdir()
    run_prune(workspace, dry_run=True)
    assert before.items() <= hashes(workspace).items()
    run_prune(workspace, dry_run=False)
    left = hashes(workspace)
    assert [key.split("/")[1] for key in left] == sorted(STAGE_NAMES)
    assert computed_stages(left, before) == ["refine", "segment"]  # the old ones are gone
    assert not stale.exists()
    assert other.exists()
    measured = [file.name.split("-")[:2] for file in (workspace / "scores").iterdir()]
    assert {f"artifacts/{stage}/{fingerprint}.h5" for stage, fingerprint in measured} <= left.keys()
    assert len(measured) == 3
    assert "removed artifacts" in capsys.readouterr().out


def test_prune_spares_what_an_interrupted_run_has_begun(tmp_path: Path, data: DataConfig) -> None:
    session = open_session(request(data, tmp_path))
    session.run.announce(session.planned)
    checkpoint = session.planned["classify"].path.with_suffix(".h5.checkpoint")
    foreign = checkpoint.with_name("0123456789abcdef.h5.checkpoint")
    checkpoint.parent.mkdir(parents=True)
    for path in (checkpoint, foreign):
        path.write_bytes(b"half done")
    run_prune(tmp_path, dry_run=False)
    assert checkpoint.exists()
    assert not foreign.exists()


def test_prune_forgets_data_sets_that_no_run_uses(workspace: Path, data: DataConfig) -> None:
    place = Workspace(workspace)
    used = [place.file_index(data.root)]
    unused = [place.file_index("elsewhere"), place.file_index("elsewhere").with_suffix(".listing")]
    written = temporary_path(used[0])  # by this process, which lives
    for path in (*used, *unused, written):
        path.touch()
    begun = workspace / "begun" / "run.json"
    begun.parent.mkdir()
    begun.write_text('{"schema": 1, "stages": {}}')  # it has not said yet which data set it is made from
    run_prune(workspace, dry_run=False)
    assert all(path.exists() for path in (*used, *unused, written))
    begun.unlink()
    run_prune(workspace, dry_run=False)
    assert all(path.exists() for path in (*used, written))
    assert not any(path.exists() for path in unused)


def test_the_u_shape_runs_in_both_networks(tmp_path: Path, data: DataConfig) -> None:
    shape = [
        f"{stage}.{setting}"
        for stage in ("classify", "segment")
        for setting in ("structure=ushape", "decoder_channels=8")
    ]
    run_all(request(data, tmp_path / "ws", *shape, "segment.exits=[4, 6, 9]", "cams.exits=[7]"))
    report = json.loads((tmp_path / "ws" / "tiny" / "report.json").read_text())
    assert report["segment.exits.blocks"] == [4, 6, 9]
    log = [json.loads(line) for line in (tmp_path / "ws" / "tiny" / "log.jsonl").read_text().splitlines()]
    losses = {item["stage"]: set(item) for item in log if "epoch" in item}
    assert losses["classify"] >= {"cls", "sr_f", "sr_l"}
    assert losses["segment"] >= {"cls", "seg", "sr_l"}
    assert "sr_f" not in losses["segment"]  # a single exit in the encoder


def test_a_workspace_that_cannot_be_written_is_named(tmp_path: Path, data: DataConfig) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"workspace .*file.*: not writable.*--workspace"):
        run_all(request(data, tmp_path / "file" / "ws"))


def test_reserved_and_escaping_run_names_are_refused(tmp_path: Path, data: DataConfig) -> None:
    for name in ("artifacts", "../x", "a/b", "", "."):
        with pytest.raises(UserError, match="--name"):
            run_all(request(data, tmp_path, name=name or " "))
