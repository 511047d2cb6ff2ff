"""The report's words: what each figure means, who chose a threshold, and which indicators deserve trust."""

from dataclasses import dataclass

from stages.commands.report.values import Values

STAGE_TITLES = {
    "cams": "Seed (class activation maps)",
    "refine": "Pseudo-masks",
    "segment": "Predictions of the trained network",
}


@dataclass(frozen=True)
class Indicator:
    """An indicator that needs no ground truth.

    Attributes:
        title: short name.
        sentence: what it is.
        trust: how well it ranked thresholds or presets where the truth was known (docs/indicators.md).
    """

    title: str
    sentence: str
    trust: str


INDICATORS: dict[str, Indicator] = {
    "colour_information": Indicator(
        "colour information, bits",
        "How much a pixel's colour tells about object or background (mutual information): high where the mask "
        "divides the image along its colours.",
        "the best of these: ranks thresholds and chooses the label-free one; does not rank CRF presets",
    ),
    "scale_agreement": Indicator(
        "agreement of scales",
        "Kappa between the seeds of the small and of the large image scales: 1 if both say the same.",
        "ranks thresholds, with its top a little below the best one",
    ),
    "mirror_agreement": Indicator(
        "agreement of mirror images",
        "Kappa between the seeds of the image and of its mirror image.",
        "ranks thresholds on one of two data sets only; not to be trusted alone",
    ),
    "cam_agreement": Indicator(
        "agreement of CAM and pseudo-mask",
        "Kappa between the seed and its refinement: low where that overruled the network.",
        "ranks CRF presets on one of two data sets only; finds images that went wrong",
    ),
    "edge_alignment": Indicator(
        "edge alignment",
        "Mean rank of the image gradient under the mask's boundaries: 0.5 is chance, 1 the image's strongest edges.",
        "does not rank thresholds, nor CRF presets; a check",
    ),
    "covered": Indicator(
        "tags with a pixel",
        "Share of tags whose class has at least one pixel in the image's mask; the rest were lost.",
        "a check, not a ranking: nearly always close to 1",
    ),
    "unsure": Indicator(
        "pixels left out",
        "Share of pixels marked as unsure (255), from which the network does not learn.",
        "a check, not a ranking",
    ),
    "confidence": Indicator(
        "confidence in the tags",
        "The classifier's mean probability of the classes that the tags name, on the images it was trained on.",
        "a check: low means that the classifier has not learned its own training tags",
    ),
    "untagged_confidence": Indicator(
        "confidence in what is not tagged",
        "The classifier's largest probability of a class that the tags do not name, averaged over images; high on "
        "single images points to missing tags.",
        "a check",
    ),
    "tags_named": Indicator(
        "predicted classes against tags",
        "F1 of the classes that the prediction names (at least 0.5 % of the image) against the tags. The network "
        "is not shown the tags of validation images.",
        "not measured against mIoU here",
    ),
}


def stage_sentences(stage: str, values: Values, refine: dict[str, object]) -> list[str]:
    """What was scored, on which images, with or without CRF, and who chose the threshold."""
    of = _images(values)
    if stage == "cams":
        return [
            f"Each pixel's strongest class map against a background score, without CRF, {of}.",
            *_threshold(values),
        ]
    if stage == "refine":
        return [
            f"The seed after {_method(refine)}, from the threshold {values['threshold']:.2f}, "
            f"chosen by {values['threshold_chosen_by']}; {of}. Scored are the refined labels, which every pixel has; "
            "the network learns from masks in which unsure pixels are left out."
        ]
    return [f"What the deployed network says about images it has not learned from, without CRF, {of}."]


def _method(refine: dict[str, object]) -> str:
    if refine["method"] == "local":
        return f"local refinement ({refine['iterations']} iterations)"
    return f"a dense CRF (preset {refine['preset']})"


def _images(values: Values) -> str:
    images, scored, split = values["images"], values["scored_images"], values["split"]
    if not scored:
        return f"on {images} images of the split {split}; none has a mask, so nothing is scored against ground truth"
    if scored == images:
        return f"scored on all {images} images of the split {split}"
    return f"scored on the {scored} of {images} images of the split {split} that have masks"


def _threshold(values: Values) -> list[str]:
    sentences = [f"The threshold {values['threshold']:.2f} was chosen by {values['threshold_chosen_by']}."]
    if values.get("best_miou") is not None:
        sentences.append(
            f"This ground truth would choose {values['best_threshold']:.2f} and score "
            f"{100 * values['best_miou']:.1f}: that figure used the masks it is scored on, so it is an upper bound and "
            "no result."
        )
    if values.get("label_free_threshold") is not None:
        text = f"Without ground truth, colour information chooses {values['label_free_threshold']:.2f}"
        free = values.get("label_free_miou")
        sentences.append(f"{text}{f', which scores {100 * free:.1f}' if free is not None else ''}.")
    return sentences


def result(name: str, values: Values | None) -> str:
    """A stage's score in words: what was measured, on what, and who chose the threshold."""
    if name == "classify":
        return ""
    if values is None:
        return "no images to score"
    if not values["scored_images"]:
        return "no masks to score against; see the report's indicators"
    miou = _percent(values["miou"])
    if name == "cams":
        fixed = values["threshold_chosen_by"].startswith("the configuration")
        chosen = "set in the configuration" if fixed else "chosen without ground truth"
        return (
            f"seed mIoU {miou} at {values['threshold']:.2f} ({chosen}); "
            f"best {_percent(values['best_miou'])} at {values['best_threshold']:.2f} (chosen by this ground truth)"
        )
    if name == "refine":
        unsure = _percent(values["indicator.unsure"])
        return f"pseudo-mask mIoU {miou} ({unsure} % of pixels left out as unsure)"
    return f"validation mIoU {miou} ({values['scored_images']} images)"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
