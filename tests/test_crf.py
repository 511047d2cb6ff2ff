"""The dense CRF against a slow mean field on a tiny image, its presets and its decisions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wsss.crf import PRESETS, CrfPreset, dense_crf, probabilities, pseudo_mask, unary_energy


def slow_mean_field(
    image: NDArray[np.uint8], probability: NDArray[np.float32], preset: CrfPreset, iterations: int
) -> NDArray[np.float64]:
    """Mean field with both kernels summed over all pairs of pixels, symmetrically normalised."""
    labels, height, width = probability.shape
    ys, xs = np.mgrid[:height, :width]
    place = np.stack([ys.ravel(), xs.ravel()], 1).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    far = ((place[:, None] - place[None]) ** 2).sum(2)
    unlike = ((colour[:, None] - colour[None]) ** 2).sum(2)
    sxy, srgb, compat = preset.bilateral
    kernels = [
        (preset.gaussian[1], np.exp(-far / (2 * preset.gaussian[0] ** 2))),
        (compat, np.exp(-far / (2 * sxy**2) - unlike / (2 * srgb**2))),
    ]
    energy = unary_energy(probability, preset).astype(float)
    q = np.exp(-energy) / np.exp(-energy).sum(0)
    for _ in range(iterations):
        message = np.zeros_like(q)
        for weight, kernel in kernels:
            norm = 1 / np.sqrt(kernel.sum(1))
            message += weight * ((q * norm) @ kernel) * norm
        q = np.exp(-energy + message)
        q /= q.sum(0)
    return np.asarray(q.reshape(labels, height, width))


def two_halves() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A dark and a bright half with noisy CAMs of the bright one."""
    image = np.zeros((12, 16, 3), np.uint8)
    image[:, 8:] = (200, 180, 160)
    cams = np.zeros((1, 12, 16), np.float32)
    cams[0, :, 8:] = 0.7
    noise = np.random.default_rng(0).normal(0, 0.25, cams.shape)
    return image, np.clip(cams + noise, 0, 1).astype(np.float32)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_crf_agrees_with_the_slow_mean_field(preset: str) -> None:
    image, cams = two_halves()
    probability = probabilities(cams, 0.3)
    got = dense_crf(image, probability, PRESETS[preset], iterations=5)
    wanted = slow_mean_field(image, probability, PRESETS[preset], 5)
    # The library filters on a permutohedral lattice: values differ a little, decisions hardly.
    assert (got.argmax(0) == wanted.argmax(0)).mean() >= 0.97
    assert got.sum(0) == pytest.approx(np.ones((12, 16)), abs=1e-4)


def test_crf_snaps_noise_to_the_images_edge() -> None:
    image, cams = two_halves()
    truth = np.zeros((12, 16), int)
    truth[:, 8:] = 1
    before = (probabilities(cams, 0.35).argmax(0) == truth).mean()
    posterior = dense_crf(image, probabilities(cams, 0.35), PRESETS["psa"], iterations=10)
    assert before < 0.95
    assert (posterior.argmax(0) == truth).all()


def test_presets_are_the_published_ones() -> None:
    table = {
        "irn": ("labels", (3, 3), (50, 5, 10)),
        "psa": ("softmax", (3, 3), (80, 13, 10)),
        "deeplab": ("softmax", (1, 3), (67, 3, 4)),
        "afa": ("softmax", (3, 3), (64, 5, 4)),
        "toco": ("softmax", (1, 1), (121, 5, 4)),
        "sr": ("softmax", (1, 4), (49, 13, 5)),
    }
    assert {name: (p.unary, p.gaussian, p.bilateral) for name, p in PRESETS.items()} == table


def test_probabilities_put_the_background_score_beside_the_cams() -> None:
    got = probabilities(np.array([[[0.6, 0.1, 0.0]]], np.float32), 0.2)
    assert got[:, 0, 0].tolist() == pytest.approx([0.25, 0.75])
    assert got[0, 0, 1] > got[1, 0, 1]
    assert got.sum(0) == pytest.approx(np.ones((1, 3)))
    assert (got > 0).all()


def test_unary_of_labels_by_hand() -> None:
    probability = np.array([[[0.5, 0.1]], [[0.3, 0.7]], [[0.2, 0.2]]], np.float32)
    energy = unary_energy(probability, PRESETS["irn"])
    assert np.exp(-energy[:, 0]) == pytest.approx([0.7, 0.15, 0.15])
    assert np.exp(-energy[:, 1]) == pytest.approx([0.15, 0.7, 0.15])
    assert np.exp(-unary_energy(probability, PRESETS["psa"])[:, 0]) == pytest.approx([0.5, 0.3, 0.2])


def test_an_image_without_tags_is_background() -> None:
    image, _ = two_halves()
    posterior = dense_crf(image, probabilities(np.zeros((0, 12, 16)), 0.2), PRESETS["irn"], iterations=3)
    mask, labels = pseudo_mask(posterior, np.array([0]), unsure=0.9)
    assert not mask.any()
    assert not labels.any()


def test_one_pixel_and_read_only_images_work() -> None:
    image = np.full((1, 1, 3), 9, np.uint8)
    image.flags.writeable = False
    posterior = dense_crf(image, probabilities(np.ones((1, 1, 1)), 0.1), PRESETS["psa"], iterations=3)
    assert posterior[1, 0, 0] > 0.5


def test_a_float_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a uint8 image"):
        dense_crf(
            np.zeros((2, 2, 3), np.float32),
            np.ones((2, 2, 2), np.float32),
            PRESETS["irn"],
            iterations=1,
        )


def test_pseudo_mask_is_255_exactly_where_unsure() -> None:
    posterior = np.array([[[0.9, 0.45, 0.2]], [[0.1, 0.55, 0.8]]], np.float32)
    mask, labels = pseudo_mask(posterior, np.array([0, 7]), unsure=0.6)
    assert mask.tolist() == [[0, 255, 7]]
    assert labels.tolist() == [[0, 7, 7]]
    assert mask.dtype == np.uint8


def test_a_weight_of_the_unary_energies_is_a_power_of_the_probabilities() -> None:
    image, cams = two_halves()
    probability = probabilities(cams, 0.3)
    raised = probability.astype(np.float64) ** 3
    raised = (raised / raised.sum(0)).astype(np.float32)
    weighted = dense_crf(image, probability, PRESETS["afa"], iterations=3, unary_weight=3.0)
    np.testing.assert_allclose(
        weighted, dense_crf(image, raised, PRESETS["afa"], iterations=3), rtol=1e-3, atol=1e-4
    )
