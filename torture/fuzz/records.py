"""JSON files that the program itself has written, and reads again."""

from collections.abc import Callable
from pathlib import Path

from data import open_dataset
from stages.commands.compare import run_compare
from stages.commands.predict.command import claim
from stages.commands.report.measure import Measured, measure
from stages.commands.run import show_status
from stages.commands.session import open_session
from stages.workspace import Workspace, open_run, prune
from tests.pipelines import request
from tests.reports import made_up_run
from tests.trees import make_folder_tree
from wsss.store.files import OutputFolder

Made = tuple[Path, bytes, Callable[[], object]]


def report(folder: Path) -> Made:
    """A report.json, compared with a healthy one."""
    data = make_folder_tree(folder / "data", n_train=3, n_val=2, size=(16, 16))
    made_up_run(data, folder / "ws", name="base")
    made_up_run(data, folder / "ws", name="other", shift=5)
    spoilt = folder / "away" / "report.json"
    spoilt.parent.mkdir()
    content = (folder / "ws" / "other" / "report.json").read_bytes()
    paths = [str(folder / "ws" / "base" / "report.json"), str(spoilt)]

    def attempt() -> object:
        return run_compare(paths, folder / "ws", out=folder / "page.html", resamples=100)

    return spoilt, content, attempt


def run_record(folder: Path) -> Made:
    """A run.json, read by all that reads it."""
    data = make_folder_tree(folder / "data", n_train=3, n_val=1, size=(16, 16))
    session = made_up_run(data, folder / "ws")
    file = session.run.folder / "run.json"

    def attempt() -> object:
        prune(Workspace(folder / "ws"), dry_run=True)
        open_run(folder / "ws", "made-up").artifact("segment").close()
        show_status(request(data, folder / "ws", name="made-up"))
        return None

    return file, file.read_bytes(), attempt


def scores(folder: Path) -> Made:
    """The kept measures of a stage."""
    data = make_folder_tree(folder / "data", n_train=3, n_val=1, size=(16, 16))
    session = made_up_run(data, folder / "ws", stages=("cams",))

    def kept() -> Measured:
        planned = session.planned
        found = measure(planned["cams"], planned, session.config, session.dataset, folder / "ws")
        assert found is not None
        return found

    def attempt() -> object:
        if (found := kept()).values != wanted:
            raise AssertionError("damaged measures were believed")
        return found.headline

    file, wanted = kept().path, kept().values
    return file, file.read_bytes(), attempt


def file_index(folder: Path) -> Made:
    """The workspace's record of checked files."""
    data = make_folder_tree(folder / "data", n_train=3, n_val=1, size=(16, 16))
    session = open_session(request(data, folder / "ws"))
    file = Workspace(folder / "ws").file_index(data.root)
    wanted = session.dataset

    def attempt() -> object:
        if open_dataset(data, cache=file).samples != wanted.samples:
            raise AssertionError("damaged facts were believed")
        return None

    return file, file.read_bytes(), attempt


def prediction(folder: Path) -> Made:
    """The record of settings in a folder of predictions."""
    out = OutputFolder(folder / "masks")
    claim(out, {"scales": [1.0], "classes": ["cat"]}, [], overlay=False, force=False)
    file = out.root / "predict.json"

    def attempt() -> object:
        claim(out, {"scales": [1.0], "classes": ["cat"]}, [], overlay=True, force=False)
        return None

    return file, file.read_bytes(), attempt
