"""Symbolic links in folders of results: nothing is written, or removed, outside of them."""

import shutil
from pathlib import Path

import pytest

from run_pipeline import EXIT_ERROR, EXIT_USER_ERROR, main
from tests.products import Product
from wsss.errors import UserError
from wsss.store.files import OutputFolder, atomic_path, exclusive, temporary_path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody else's that must stay as it is."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "theirs").write_text("theirs")
    return folder


def untouched(elsewhere: Path) -> bool:
    return [path.name for path in elsewhere.iterdir()] == ["theirs"] and (
        elsewhere / "theirs"
    ).read_text() == "theirs"


def test_a_link_out_of_the_folder_is_refused_by_name(tmp_path: Path, elsewhere: Path) -> None:
    out = OutputFolder(tmp_path / "out")
    (out.root / "inner").mkdir(parents=True)
    (out.root / "inner" / "away").symlink_to(elsewhere)
    (out.root / "dangling").symlink_to(tmp_path / "out-too" / "nothing")
    for name in ("inner/away/a.png", "inner/away/deep/a.png", "inner/away/", "dangling/a.png", "../a.png"):
        with pytest.raises(UserError, match="leads out of the output folder") as caught:
            out.hold(["b.png", name])
        assert str(caught.value).count("\n") < 3
    with pytest.raises(UserError, match=f"inner/away/deep -> {elsewhere}/deep:"):
        out.place("inner/away/deep/a.png")


def test_links_that_stay_inside_or_lead_to_the_folder_are_followed(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "out").symlink_to(elsewhere)
    (elsewhere / "a").mkdir()
    (elsewhere / "b").symlink_to("a")
    out = OutputFolder(tmp_path / "out")
    assert out.place("b/c.png") == tmp_path / "out" / "b" / "c.png"
    assert out.place("new/folder/") == tmp_path / "out" / "new" / "folder"


def test_a_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path, elsewhere: Path) -> None:
    for name, target in (("there", elsewhere / "theirs"), ("dangling", elsewhere / "new")):
        path = tmp_path / name
        path.symlink_to(target)
        temporary_path(path).symlink_to(elsewhere / "theirs")
        with atomic_path(path) as temporary:
            temporary.write_text("ours")
        assert path.read_text() == "ours"
        assert not path.is_symlink()
    (tmp_path / "a.lock").symlink_to(elsewhere / "lock")
    with pytest.raises(OSError, match="symbolic links"), exclusive(tmp_path / "a"):
        pass
    assert untouched(elsewhere)


@pytest.mark.slow
def test_predict_writes_through_no_link(
    product: Product, tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "masks").mkdir(parents=True)
    photograph = next(path for path in sorted(product.images.iterdir()) if path.stem.startswith("val"))
    for name in ("a.jpg", "masks/b.jpg"):
        (tmp_path / "photos" / name).write_bytes(photograph.read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    (out / "masks").symlink_to(elsewhere)
    arguments = product.arguments("predict", "tiny", tmp_path / "photos", "--out", out)
    assert main([*arguments, "--force"]) == EXIT_USER_ERROR
    assert f"{out / 'masks'} -> {elsewhere}" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["masks"]  # not even the record
    (out / "masks").unlink()
    (out / "a.png").symlink_to(elsewhere / "new")
    assert main(arguments) == EXIT_USER_ERROR
    assert "none of this program's" in capsys.readouterr().err
    (out / "predict.json").symlink_to(elsewhere / "theirs")
    assert main([*arguments, "--force"]) == 0
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert untouched(elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("usual", [False, True], ids=["--out", "the run's own folder"])
def test_export_writes_through_no_link(
    product: Product, tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], usual: bool
) -> None:
    workspace = tmp_path / "ws"
    shutil.copytree(product.workspace, workspace, ignore=shutil.ignore_patterns("export"))
    link = workspace / "tiny" / "export" if usual else tmp_path / "out" / "ImageSets"  # written last
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    arguments = ["export", "tiny", "--format", "voc", "--from", "masks", "--workspace", str(workspace)]
    arguments += [] if usual else ["--out", str(tmp_path / "out")]
    assert main([*arguments, "--force"]) == EXIT_USER_ERROR
    error = capsys.readouterr().err
    assert f"{link}" in error
    assert f" -> {elsewhere}" in error
    assert untouched(elsewhere)
    assert usual or list(link.parent.iterdir()) == [link]


@pytest.mark.parametrize("name", ["artifacts", "artifacts/cams", "scores", "tiny", "tiny/tensorboard"])
def test_a_workspace_with_a_link_out_of_it_is_refused(
    tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    workspace = tmp_path / "runs"
    (workspace / name).parent.mkdir(parents=True)
    (workspace / name).symlink_to(elsewhere)
    (tmp_path / "data" / "images").mkdir(parents=True)
    arguments = ["--workspace", str(workspace)]
    run = ["run", "--name", "tiny", "--set", f"data.root={tmp_path / 'data'}", *arguments]
    assert main(run) == EXIT_USER_ERROR
    assert f"{workspace / name} -> {elsewhere}" in capsys.readouterr().err
    if "tiny" not in name:
        assert main(["prune", *arguments]) == EXIT_USER_ERROR
        assert "leads out" in capsys.readouterr().err
    assert untouched(elsewhere)


@pytest.mark.slow
def test_a_log_that_is_a_link_is_not_followed(
    product: Product, tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = shutil.copytree(product.workspace, tmp_path / "ws")
    log = workspace / "tiny" / "log.jsonl"
    log.unlink()
    log.symlink_to(elsewhere / "theirs")
    assert main(["stage", "cams", "--force", "--name", "tiny", "--workspace", str(workspace)]) == EXIT_ERROR
    assert "remove the link" in capsys.readouterr().err
    assert untouched(elsewhere)
