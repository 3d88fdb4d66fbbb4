"""Small maps and masks of every kind that a metric could trip over."""

import itertools

import numpy as np
import pytest

SIZES = ((1, 1), (1, 9), (9, 1), (2, 2), (13, 7), (32, 41), (60, 80))


def _disc(rng, height, width):
    rows, columns = np.mgrid[:height, :width]
    centre = rng.uniform(0, height), rng.uniform(0, width)
    radii = height * rng.uniform(0.05, 0.5), width * rng.uniform(0.05, 0.5)
    return ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1


def _one_pixel(rng, height, width):
    mask = np.zeros(height * width, dtype=np.uint8)
    mask[rng.integers(mask.size)] = 255
    return mask.reshape(height, width)


MASKS = {
    "disc": lambda rng, h, w: _disc(rng, h, w) * np.uint8(255),
    "noise": lambda rng, h, w: (rng.random((h, w)) < rng.random()) * np.uint8(255),
    "grey": lambda rng, h, w: rng.integers(0, 256, (h, w), dtype=np.uint8),
    "one pixel": _one_pixel,
    "empty": lambda rng, h, w: np.zeros((h, w), dtype=np.uint8),
    "full": lambda rng, h, w: np.full((h, w), 255, dtype=np.uint8),
}

MAPS = {
    "noise": lambda rng, h, w: rng.integers(0, 256, (h, w), dtype=np.uint8),
    "narrow": lambda rng, h, w: rng.integers(100, 110, (h, w), dtype=np.uint8),
    "four levels": lambda rng, h, w: rng.choice(np.uint8([0, 77, 128, 255]), (h, w)),
    "disc": lambda rng, h, w: (_disc(rng, h, w) * 200 + rng.integers(0, 50, (h, w))).astype("u1"),
    "constant": lambda rng, h, w: np.full((h, w), rng.integers(256), dtype=np.uint8),
    "black": lambda rng, h, w: np.zeros((h, w), dtype=np.uint8),
}


@pytest.fixture(scope="session")
def cases():
    """(label, map, mask) for every kind of map on every kind of mask, at every size."""
    rng = np.random.default_rng(7)
    kinds = itertools.product(MAPS.items(), MASKS.items(), SIZES)
    return [
        (f"{map_kind} on {mask_kind} at {size}", make_map(rng, *size), make_mask(rng, *size))
        for (map_kind, make_map), (mask_kind, make_mask), size in kinds
    ]


class Pictures:
    """A source in memory."""

    skipped = ()

    def __init__(self, samples):
        self.samples = samples
        self.names = [sample.name for sample in samples]
        self.contents = self.names

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.fixture(scope="session")
def pictures():
    """Eight images with ground truths, of different odd sizes."""
    from lmwp_models.data.sources import Sample

    rng = np.random.default_rng(3)
    samples = []
    for i in range(8):
        height, width = 20 + 3 * i, 41 - 2 * i
        mask = MASKS["disc"](rng, height, width)
        noise = rng.integers(0, 120, (height, width, 3))
        image = np.where(mask[:, :, None] > 0, 255 - noise, noise).astype(np.uint8)
        samples.append(Sample(f"picture-{i}", image, mask))
    return Pictures(samples)


@pytest.fixture(scope="session")
def make_source():
    """Source from a list of samples."""
    return Pictures
