"""The crop and flip of the CSNet recipe, measured on pictures that carry their coordinates."""

import numpy as np
import pytest

from lmwp_models.data import AugmentConfig
from lmwp_models.data.augment import apply_crop, draw_crop


def augment(image, mask, config, rng):
    crop = draw_crop(mask.shape, config, rng)
    return apply_crop(image, crop), apply_crop(mask, crop)


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """image[y, x] = (y, x, 7), mask[y, x] = y ^ x."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, 7)], 2).astype(np.uint8), (y ^ x).astype(np.uint8)


def test_ranges_and_shares() -> None:
    image, mask = coordinates(120, 150)
    rng = np.random.default_rng(0)
    crops, flips = [], []
    for _ in range(4000):
        got, got_mask = augment(image, mask, AugmentConfig(), rng)
        assert np.array_equal(got[:, :, 0] ^ got[:, :, 1], got_mask)
        rows, columns = got[:, 0, 0].astype(int), got[0, :, 1].astype(int)
        assert set(np.abs(np.diff(rows))) == {1}
        crops.append((rows.min(), columns.min(), 119 - rows.max(), 149 - columns.max()))
        flips.append((rows[0] > rows[-1], columns[0] > columns[-1]))
    top, left, bottom, right = (set(side) for side in zip(*crops, strict=True))
    assert top == left == set(range(15))
    assert bottom == right == set(range(1, 16))
    upside_down, mirrored = np.mean(flips, axis=0)
    assert upside_down == pytest.approx(0.25, abs=0.03)
    assert mirrored == pytest.approx(0.25, abs=0.03)
    assert not any(a and b for a, b in flips)


def test_switches() -> None:
    image, mask = coordinates(50, 60)
    rng = np.random.default_rng(0)
    off = AugmentConfig(crop=0, flip=0)
    assert np.array_equal(augment(image, mask, off, rng)[0], image)
    mirror = AugmentConfig(crop=0, flip=1, vertical=0)
    assert np.array_equal(augment(image, mask, mirror, rng)[1], mask[:, ::-1])
    turn = AugmentConfig(crop=0, flip=1, vertical=1)
    assert np.array_equal(augment(image, mask, turn, rng)[0], image[::-1])


def test_switches_do_not_shift_the_other_draws() -> None:
    image, mask = coordinates(90, 90)
    both, crop_only = AugmentConfig(flip=1, vertical=0), AugmentConfig(flip=0)
    for seed in range(20):
        flipped = augment(image, mask, both, np.random.default_rng(seed))[0]
        plain = augment(image, mask, crop_only, np.random.default_rng(seed))[0]
        assert np.array_equal(flipped[:, ::-1], plain)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3), (5, 5), (16, 200), (30, 31), (60, 61)])
def test_small_pictures_keep_at_least_half(shape: tuple[int, int]) -> None:
    image, mask = coordinates(*shape)
    rng = np.random.default_rng(1)
    for _ in range(200):
        got, got_mask = augment(image, mask, AugmentConfig(), rng)
        assert got.shape[:2] == got_mask.shape
        assert all(2 * g >= s for g, s in zip(got_mask.shape, shape, strict=True))


def test_the_bound_spares_pictures_of_61() -> None:
    image, mask = coordinates(61, 61)
    rng = np.random.default_rng(0)
    sizes = {augment(image, mask, AugmentConfig(), rng)[1].shape[0] for _ in range(3000)}
    assert (min(sizes), max(sizes)) == (61 - 29, 61 - 1)


@pytest.mark.parametrize("wrong", [{"crop": -1}, {"flip": 1.5}, {"vertical": -0.1}])
def test_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentConfig(**wrong)
