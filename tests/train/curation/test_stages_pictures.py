"""Measures of single pictures against closed forms and constructed pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.curation.stages.black import dark_share
from hummingbird_train.curation.stages.blockiness import FLOOR, blockiness
from hummingbird_train.curation.stages.colour import colourfulness
from hummingbird_train.curation.stages.fingerprint import hamming, nearest, perceptual_hash
from hummingbird_train.curation.stages.noise import noise_sigma
from hummingbird_train.curation.stages.nss import (
    FEATURES,
    PristineModel,
    fit_asymmetric,
    fit_model,
    load_model,
    normalise,
    patch_features,
)
from hummingbird_train.curation.stages.sharpness import (
    blur_effect,
    laplacian_variance,
    tenengrad,
)
from hummingbird_train.curation.stages.text import text_area

cv2 = pytest.importorskip("cv2")


def _texture(seed: int, side: int = 96, sigma: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (side, side)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def test_black_is_a_tenth_of_full_scale() -> None:
    y = np.array([[[25, 26, 0, 255]], [[0, 0, 0, 0]]], np.uint8)
    assert dark_share(y).tolist() == [0.5, 1.0]


def test_laplacian_of_a_checkerboard_of_pixels() -> None:
    y = (np.indices((8, 8)).sum(axis=0) % 2 * 10).astype(np.uint8)
    # every pixel differs from its four neighbours by 10 (borders reflect): the Laplacian is +-40
    assert laplacian_variance(y) == pytest.approx(1600)


def test_tenengrad_of_a_ramp() -> None:
    y = np.tile(np.arange(64, dtype=np.uint8) * 2, (64, 1))
    inner = tenengrad(np.ascontiguousarray(y[:, 1:-1]))
    # Sobel weighs a step of 2 a pixel with 8: 16^2 everywhere but at two of the 62 columns
    assert inner == pytest.approx(256 * 60 / 62)


def test_blur_effect_grows_with_blur_whatever_the_content() -> None:
    for content in range(3):
        sharp = _texture(content)
        grades = [blur_effect(cv2.GaussianBlur(sharp, (0, 0), s)) for s in (0.5, 1.5, 3.0)]
        assert blur_effect(sharp) < grades[0] < grades[1] < grades[2] < 1
    assert blur_effect(np.full((16, 16), 7, np.uint8)) == 1.0


def test_noise_is_measured_in_grey_levels_and_ramps_have_none() -> None:
    ramp = np.add.outer(np.arange(96), np.arange(96)) * 0.6 + 40
    rng = np.random.default_rng(0)
    for sigma in (3.0, 10.0):
        noisy = np.clip(ramp + rng.normal(0, sigma, ramp.shape), 0, 255).astype(np.uint8)
        # edges masked out take the steepest tenth, which in pure noise is the noisiest: up to -12 %
        assert 0.85 * sigma < noise_sigma(noisy) < 1.03 * sigma
    assert noise_sigma(np.add.outer(np.arange(96), np.arange(96)).astype(np.uint8)) < 0.01


def test_blocks_stand_out_on_their_grid_wherever_it_begins() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 9, (14, 14)).repeat(8, 0).repeat(8, 1) * 10
    y = (blocks + 60).astype(np.uint8)
    steps = np.median(np.abs(np.diff(blocks.astype(float), axis=0)).mean(axis=1)[7::8])
    expected = np.log((steps + FLOOR) / FLOOR)  # no steps at all off the grid
    assert blockiness(y[None]) == pytest.approx(expected, rel=0.1)
    assert blockiness(y[None, 3:, 5:]) == pytest.approx(expected, rel=0.1)


def test_strong_edges_and_smooth_texture_are_no_blocks() -> None:
    checker = (np.indices((96, 96)) // 24).sum(axis=0) % 2 * 200
    assert abs(blockiness(checker.astype(np.uint8)[None])) < 1e-6
    assert blockiness(_texture(0)[None]) < 0.25
    assert blockiness(np.zeros((1, 8, 8), np.uint8)) == 0.0


def test_jpeg_raises_blockiness() -> None:
    y = _texture(1)
    coded = cv2.imdecode(cv2.imencode(".jpg", y, [cv2.IMWRITE_JPEG_QUALITY, 5])[1], 0)
    assert blockiness(coded[None]) > blockiness(y[None]) + 0.3


def test_colourfulness_of_grey_and_of_two_colours() -> None:
    grey = np.full((4, 4, 3), 90, np.uint8)
    assert colourfulness(grey) == 0
    halves = np.zeros((2, 2, 3), np.uint8)
    halves[0] = (200, 0, 0)
    halves[1] = (0, 200, 0)
    # rg = +-200: spread 200, mean 0; yb = 100 everywhere: spread 0, mean 100
    assert colourfulness(halves) == pytest.approx(200 + 0.3 * 100)


def test_hashes_survive_scaling_and_light_but_tell_pictures_apart() -> None:
    a, b = (_texture(seed, 128, 9.0) for seed in (1, 2))
    changed = cv2.resize(np.clip(a * 0.9 + 8, 0, 255).astype(np.uint8), (96, 80))
    assert len(perceptual_hash(a[None])) == 16
    assert hamming(perceptual_hash(a[None]), perceptual_hash(changed[None])) <= 4
    assert hamming(perceptual_hash(a[None]), perceptual_hash(b[None])) >= 16
    assert perceptual_hash(np.stack([a, b])) == perceptual_hash(a[None]) + perceptual_hash(b[None])


def test_nearest_is_the_smallest_distance_to_another() -> None:
    assert nearest(["00ff", "00fe", "ff00"]).tolist() == [1, 1, 15]


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (1.0, 0.5, 1.5)])
def test_asymmetric_gaussians_are_fitted(shape: float, left: float, right: float) -> None:
    rng = np.random.default_rng(0)
    size = rng.gamma(1 / shape, 1.0, (1, 200_000)) ** (1 / shape)
    below = rng.random(size.shape) < left / (left + right)
    values = np.where(below, -left * size, right * size).astype(np.float32)
    fitted = [float(part[0]) for part in fit_asymmetric(values)]
    from math import gamma

    mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
    # moments of 200,000 draws: 2 % is four standard errors of the shape
    assert fitted == pytest.approx([shape, left, right, mean], rel=0.02, abs=0.01)


def test_normalised_luma_does_not_depend_on_light_and_hardly_on_contrast() -> None:
    y = _texture(3).astype(np.float32)
    plain, _ = normalise(y)
    brighter, _ = normalise(y * 2 + 17)
    assert np.abs(brighter - plain).max() < 0.2  # the constant 1 in the denominator
    assert np.abs(brighter - plain).mean() < 0.05


def test_distance_ranks_clean_under_noisy_and_blurred(tmp_path: Path) -> None:
    model = fit_model(_texture(seed, 192, 1.0) for seed in range(12))
    model.save(tmp_path / "model.json")
    model = load_model(str(tmp_path / "model.json"))
    fresh = _texture(99, 192, 1.0)
    noise = np.random.default_rng(0).normal(0, 20, fresh.shape)
    noisy = np.clip(fresh + noise, 0, 255).astype(np.uint8)
    clean, bad, soft = (
        model.distance(patch_features(picture)[0])
        for picture in (fresh, noisy, cv2.GaussianBlur(fresh, (0, 0), 2.0))
    )
    assert clean < 0.6 * min(bad, soft)


def test_features_of_a_picture_under_one_patch() -> None:
    features, contrast = patch_features(_texture(0, 40))
    assert features.shape == (1, FEATURES)
    assert contrast.shape == (1,)
    assert np.isfinite(features).all()
    assert np.isfinite(patch_features(np.full((40, 40), 9, np.uint8))[0]).all()


def test_distance_has_its_closed_form() -> None:
    model = PristineModel(np.zeros(FEATURES), np.full(FEATURES, 2.0))
    # one patch has no variance of its own: (2 + 0) / 2 = 1
    assert model.distance(np.full((1, FEATURES), 0.5)) == pytest.approx(0.5, rel=1e-5)
    # patches at 0 and 2 have mean 1 and variance 1: 1 / sqrt((2 + 1) / 2)
    rows = np.stack([np.zeros(FEATURES), np.full(FEATURES, 2.0)])
    assert model.distance(rows) == pytest.approx(1.5**-0.5, rel=1e-5)


@pytest.mark.parametrize("text", ["", "{}", '{"mean": [1], "variance": [1]}'])
def test_files_that_are_no_model_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match="variance"):
        load_model(str(tmp_path / "m.json"))
    with pytest.raises(InputError, match="patches"):
        fit_model([_texture(0)])


def test_text_boxes_are_grown_and_only_lines_count() -> None:
    chance = np.zeros((128, 256), np.float32)
    chance[20:30, 40:140] = 0.9  # a line, 10 x 100: grown by 1000 x 1.6 / 220 = 7.3 all round
    chance[60:90, 40:70] = 0.9  # a square thing
    chance[110:114, 10:80] = 0.4  # too faint for a box
    area, boxes = text_area(chance)
    assert boxes == 1
    assert area == pytest.approx((9 + 14.3) * (99 + 14.3) / chance.size, rel=0.08)
    assert text_area(np.zeros((32, 32), np.float32)) == (0.0, 0)
