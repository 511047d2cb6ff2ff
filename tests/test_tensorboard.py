"""`--tensorboard`: what is written is what TensorBoard reads back."""

import importlib.util
import json
from pathlib import Path

import pytest

from run_pipeline import main
from stages.commands.report import require_tensorboard
from stages.commands.session import Session
from tests.reports import made_up_run
from tests.trees import make_folder_tree
from wsss.errors import UserError


@pytest.fixture
def session(tmp_path: Path) -> Session:
    data = make_folder_tree(tmp_path / "data", n_train=6, n_val=3)
    session = made_up_run(data, tmp_path / "ws")
    for epoch in (1, 2):
        session.run.log({"stage": "segment", "epoch": epoch, "seg": 1.0 / epoch})
    return session


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own protobuf files
def test_events_are_read_back(session: Session) -> None:
    root = session.workspace.root
    assert main(["report", "made-up", "--workspace", str(root), "--tensorboard"]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "made-up" / "tensorboard"), {"scalars": 0, "images": 0})
    events.Reload()
    losses = events.Scalars("training/segment/seg")
    assert [(event.step, event.value) for event in losses] == [(1, 1.0), (2, 0.5)]
    report = json.loads((root / "made-up" / "report.json").read_text(encoding="utf-8"))
    assert events.Scalars("quality/segment/miou")[0].value == pytest.approx(report["segment.miou"])
    assert len(events.Scalars("quality/cams/curve.miou")) == 99
    assert any(tag.startswith("refine/") for tag in events.Tags()["images"])


def test_without_the_package_it_says_so_before_anything_runs(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else real(name)
    )
    with pytest.raises(UserError, match="pip install tensorboard"):
        require_tensorboard()
