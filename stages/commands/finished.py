"""A finished run, found in its workspace alone: the data set it was made from may be gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.integrity import verify
from stages.workspace import Run, Workspace
from wsss.config import Config, load_config
from wsss.errors import UserError, listed
from wsss.store.artifacts import Artifact


@dataclass(frozen=True)
class FinishedRun:
    """A run with its configuration and what its run.json says.

    Attributes:
        run: its folder.
        workspace: where its artifacts are.
        config: resolved, as it was last run.
        stages: by name, what run.json says of each finished stage.
    """

    run: Run
    workspace: Workspace
    config: Config
    stages: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.folder.name

    def path(self, stage: str) -> Path:
        """Where a stage's artifact is.

        Raises:
            UserError: the run has none, or its file is gone; the message names the command that computes it.
        """
        command = (
            f"`run_pipeline.py run --name '{self.name}' --workspace '{self.workspace.root}'` computes it"
        )
        if stage not in self.stages:
            raise UserError(
                f"run {self.name}: it has no result of stage {stage} ({self.run.folder / 'run.json'}); {command}"
            )
        path = self.workspace.root / "artifacts" / stage / f"{self.stages[stage]['fingerprint']}.h5"
        if not path.exists():
            raise UserError(f"run {self.name}: the result of stage {stage} is gone ({path}); {command}")
        return path

    def artifact(self, stage: str) -> Artifact:
        """A stage's artifact. Raises as `path`, and DamagedArtifactError."""
        path, fingerprint = self.path(stage), self.stages[stage]["fingerprint"]
        verify(path, fingerprint)
        return Artifact(path, fingerprint=fingerprint)


def open_run(folder: Path, name: str, overrides: Sequence[str] = ()) -> FinishedRun:
    """Find a run by its name.

    Args:
        folder: the workspace.
        name: of the run.
        overrides: ``run.key=value`` texts: where and how to compute. What was computed cannot be changed here.

    Raises:
        UserError: there is no such run, or an override of another section.
    """
    workspace = Workspace(folder.expanduser().resolve())
    run = workspace.run(name)
    if not (run.config_file.exists() and (run.folder / "run.json").exists()):
        known = listed([item.folder.name for item in workspace.runs()], ", ")
        raise UserError(
            f"{name}: no such run in {workspace.root}; expected one of: {known or 'there is none yet'} "
            "(another place: --workspace DIR)"
        )
    foreign = [text for text in overrides if not text.strip().startswith("run.")]
    if foreign:
        raise UserError(
            f"--set {foreign[0]}: a finished run is used as it is; only run.device, run.precision and "
            "run.workers can be set here"
        )
    config = load_config(run.config_file, overrides)
    return FinishedRun(run, workspace, config, run.record().get("stages", {}))
