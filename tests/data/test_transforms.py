"""The evaluation protocol's resize and normalisation, against the formula written out."""

import numpy as np
import pytest
import torch

from lmwp_models.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalise,
    normalise,
    resize,
    to_input,
    to_target,
)


def bilinear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Half-pixel centres, edges repeated, no smoothing: [h, w] -> [H, W] in float64."""
    for axis, length in enumerate(size):
        source = picture.shape[axis]
        position = (np.arange(length) + 0.5) * source / length - 0.5
        low = np.floor(position).astype(int)
        weight = position - low
        shape = [1, 1]
        shape[axis] = length
        weight = weight.reshape(shape)
        below = picture.take(low.clip(0, source - 1), axis)
        above = picture.take((low + 1).clip(0, source - 1), axis)
        picture = below * (1 - weight) + above * weight
    return picture


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (40, 32), (101, 320), (320, 213)])
@pytest.mark.parametrize("size", [(32, 32), (48, 16), (224, 224)])
def test_against_the_formula(shape: tuple[int, int], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    mask = rng.integers(0, 256, shape, np.uint8)
    got = to_input(image, size)
    assert (got.shape, got.dtype) == ((3, *size), torch.float32)
    assert got.is_contiguous()
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        want = (bilinear(image[:, :, channel] / 255, size) - mean) / std
        np.testing.assert_allclose(got[channel], want, atol=2e-4)
    target = to_target(mask, size)
    assert (target.shape, target.dtype) == ((1, *size), torch.float32)
    np.testing.assert_allclose(target[0], bilinear(mask / 255, size), atol=5e-5)


def test_views_of_any_strides() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    view = image[3:-4, 5:-1][:, ::-1]
    assert torch.equal(to_input(view, (32, 32)), to_input(view.copy(), (32, 32)))
    view.flags.writeable = False
    assert torch.equal(to_target(view[:, :, 0], (8, 8)), to_target(view[:, :, 0].copy(), (8, 8)))


def test_the_argument_is_left_alone() -> None:
    image = np.full((32, 32, 3), 200, np.uint8)
    to_input(image, (32, 32))
    assert (image == 200).all()
    x = torch.rand(1, 3, 8, 8)
    assert resize(x, (8, 8)) is x


def test_denormalise_inverts() -> None:
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(denormalise(normalise(x)), x)
