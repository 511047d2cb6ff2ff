"""The page of a run's report: its figures in words and pictures."""

from typing import Any

from stages.quality.gallery import Exhibit, choose, exhibit
from stages.quality.measure import scored_images
from stages.quality.measured import Values
from stages.quality.report import Subject
from stages.quality.wording import INDICATORS, STAGE_TITLES, stage_sentences
from wsss.artifacts import Artifact
from wsss.config import to_tree
from wsss.report.page import render


def page_of(values: Values, subject: Subject) -> str:
    """report.html as text; ``values`` is report.json."""
    return render("report.html", **page_context(values, subject))


def page_context(values: Values, subject: Subject) -> dict[str, Any]:
    """What the page's template is given."""
    refine = to_tree(subject.config.refine)
    stages = [
        {
            "name": name,
            "title": STAGE_TITLES[name],
            "values": measured,
            "sentences": stage_sentences(name, dict(measured), refine),
            "exhibits": exhibits_of(name, subject),
        }
        for name, measured in subject.measures.items()
    ]
    return {
        "report": values,
        "stages": stages,
        "indicators": INDICATORS,
        "times": [name for name in subject.planned if f"{name}.fingerprint" in values],
    }


def exhibits_of(stage: str, subject: Subject) -> list[Exhibit]:
    """The pictures of one measured stage."""
    values = dict(subject.measures[stage])
    samples = {sample.id: sample for sample in scored_images(stage, subject.config, subject.dataset).samples}
    artifacts = {
        name: Artifact(item.path)
        for name, item in subject.planned.items()
        if item.cached and name != "classify"
    }
    scores = dict(zip(values["per_image.id"], values["per_image.miou"], strict=True))
    classes = subject.dataset.classes
    try:
        return [
            exhibit(
                group,
                samples[image_id],
                stage,
                artifacts,
                background=values.get("threshold", 0.0),
                classes=classes,
                score=scores[image_id],
            )
            for group, image_id in choose(stage, values, samples, classes)
        ]
    finally:
        for artifact in artifacts.values():
            artifact.close()
