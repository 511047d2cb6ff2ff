"""Training views: pixels and labels stay together, randomness depends on (seed, epoch, image) alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data import Dataset, open_dataset
from data.loading import TrainingViews, ground_truth, random_view, training_batches, whole_image
from tests.trees import make_folder_tree
from wsss.config import ClassifyConfig, SegmentConfig
from wsss.errors import UserError

CONFIG = SegmentConfig(long_side=(40, 64), crop=48, batch=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(make_folder_tree(tmp_path_factory.mktemp("data"), n_train=6, n_val=2))


def views(dataset: Dataset, seed: int = 0, masks: bool = True) -> TrainingViews:
    samples = dataset.split("train").samples
    return TrainingViews(samples, len(dataset.classes), CONFIG, seed, ground_truth if masks else None)


@given(seed=st.integers(0, 500), height=st.integers(1, 90), width=st.integers(1, 90))
@settings(max_examples=60)
def test_labels_follow_their_pixels(seed: int, height: int, width: int) -> None:
    # Black and white halves labelled 1 and 2: wherever the view is purely black or white, the label must agree.
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    labels = np.where(image[..., 0] == 0, 1, 2).astype(np.uint8)
    picture, target = random_view(image, labels, CONFIG, np.random.default_rng(seed))
    assert picture.shape == (3, 48, 48)
    assert target is not None
    assert target.shape == (48, 48)
    assert set(np.unique(target.numpy()).tolist()) <= {1, 2, 255}
    assert bool((target[picture[0] == 0] != 2).all())
    assert bool((target[picture[0] == 1] != 1).all())
    grey = picture[0] == 127 / 255
    assert bool((target[~grey] != 255).all())


def test_a_large_image_fills_its_view() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    config = replace(CONFIG, long_side=(64, 64))
    _, target = random_view(image, np.ones((64, 64), np.uint8), config, np.random.default_rng(0))
    assert target is not None
    assert bool((target == 1).all())


def test_mirroring_happens_half_of_the_time_and_can_be_switched_off() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, :24] = 255
    config = replace(CONFIG, long_side=(48, 48))

    def mirrored(flip: bool) -> int:
        changed = replace(config, flip=flip)
        pictures = [random_view(image, None, changed, np.random.default_rng(i))[0] for i in range(100)]
        return sum(float(picture[0, 0, 0]) == 0.0 for picture in pictures)

    assert 30 < mirrored(True) < 70
    assert mirrored(False) == 0


def test_jitter_stays_in_range_and_changes_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    plain, _ = random_view(image, None, replace(CONFIG, long_side=(48, 48)), np.random.default_rng(1))
    strong = replace(CONFIG, long_side=(48, 48), jitter=0.5)
    picture, _ = random_view(image, None, strong, np.random.default_rng(1))
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    assert not torch.equal(plain, picture)


def test_views_depend_on_seed_epoch_and_image_alone(dataset: Dataset) -> None:
    first = views(dataset)[(0, 1)][1]
    assert torch.equal(first, views(dataset)[(0, 1)][1])
    torch.manual_seed(99)
    assert torch.equal(first, views(dataset)[(0, 1)][1])
    for other in (views(dataset)[(1, 1)][1], views(dataset, seed=1)[(0, 1)][1]):
        assert not torch.equal(first, other)


def test_batches_are_the_same_with_worker_processes_and_after_a_resume(dataset: Dataset) -> None:
    alone = list(training_batches(views(dataset), 0, 4, 0))
    with_workers = list(training_batches(views(dataset), 0, 4, 1))
    resumed = list(training_batches(views(dataset), 2, 4, 0))
    assert [batch.ids for batch in alone] == [batch.ids for batch in with_workers]
    for one, other in [*zip(alone, with_workers, strict=True), *zip(alone[2:], resumed, strict=True)]:
        assert torch.equal(one.images, other.images)
        assert one.labels is not None
        assert other.labels is not None
        assert torch.equal(one.labels, other.labels)


def test_tags_are_the_samples_own_and_labels_absent_without_masks(dataset: Dataset) -> None:
    samples = dataset.split("train").samples
    for index, sample in enumerate(samples):
        image_id, _, tags, labels = views(dataset, masks=False)[(0, index)]
        assert image_id == sample.id
        assert tags.nonzero().flatten().tolist() == list(sample.tags)
        assert labels is None
    batch = next(iter(training_batches(views(dataset, masks=False), 0, 1, 0)))
    assert batch.labels is None


def test_whole_images_are_reduced_to_the_working_size(tmp_path: Path) -> None:
    data = make_folder_tree(tmp_path, n_train=3, n_val=0, size=(60, 120))
    sample = open_dataset(data).samples[0]
    assert whole_image(sample, 1000).shape == (3, 60, 120)
    assert whole_image(sample, 40).shape == (3, 20, 40)
    with Image.open(sample.image) as picture:
        wanted = np.asarray(picture.convert("RGB"))
    assert torch.equal(
        (whole_image(sample, 1000) * 255).round().byte(), torch.tensor(wanted).permute(2, 0, 1)
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_has_gone_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    data = open_dataset(make_folder_tree(tmp_path, n_train=3, n_val=0, masks=False))
    data.samples[0].image.unlink()
    made = TrainingViews(data.samples, 3, ClassifyConfig(batch=3), 0, None)
    with pytest.raises(UserError, match="cannot be read") as caught:
        list(training_batches(made, 0, 1, workers))
    assert str(caught.value).startswith(str(data.samples[0].image))
    assert "\n" not in str(caught.value)


@given(seed=st.integers(0, 300), height=st.integers(20, 120), width=st.integers(20, 120))
@settings(max_examples=60)
def test_a_crop_on_a_labelled_pixel_holds_one_whatever_the_sizes(seed: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    labels[random.integers(height), random.integers(width)] = 2
    image = np.repeat(labels[..., None], 3, 2)
    config = replace(CONFIG, zoom=(1.0, 1.0), labelled_crops=1.0)
    _, target = random_view(image, labels, config, random)
    assert target is not None
    assert bool((target == 2).any())


def test_labelled_crops_draw_classes_not_pixels() -> None:
    # One pixel of class 1 far from 400 of class 2: both are held by about half of the crops.
    labels = np.zeros((300, 300), np.uint8)
    labels[10, 10], labels[270:290, 270:290] = 1, 2
    image = np.zeros((300, 300, 3), np.uint8)
    config = replace(CONFIG, zoom=(1.0, 1.0), labelled_crops=1.0)
    found = [random_view(image, labels, config, np.random.default_rng(seed))[1] for seed in range(100)]
    assert 30 <= sum(bool((target == 1).any()) for target in found if target is not None) <= 70


def test_zoom_is_a_factor_on_the_images_own_size() -> None:
    labels = np.zeros((24, 12), np.uint8)
    labels[:12] = 1
    config = replace(CONFIG, zoom=(2.0, 2.0))
    _, target = random_view(np.zeros((24, 12, 3), np.uint8), labels, config, np.random.default_rng(0))
    assert target is not None
    assert int((target == 1).sum()) == 24 * 24
    assert int((target == 0).sum()) == 24 * 24
