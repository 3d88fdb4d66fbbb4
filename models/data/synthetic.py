"""A procedural data set: salient objects on textured grounds, made on the fly from a seed.

Each picture has one to three objects with a texture, colours and light of their own, and faint
shapes that are not to be found. In every fourth picture the objects cover less than 2 % together.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lmwp_models.data.shapes import Patch, draw_shape
from lmwp_models.data.sources import Sample
from lmwp_models.data.textures import Shape, smooth_noise, texture
from lmwp_models.errors import UserError

TINY_EVERY = 4
TINY_AREA = 0.02
SMALLEST_SIDE = 32

Colour = npt.NDArray[np.float32]  # [3, 1, 1], 0 .. 255
Canvas = npt.NDArray[np.float32]  # [3, H, W], 0 .. 255: planes are twice as fast as pixels


class SyntheticSource:
    """`count` pictures of `size`; picture i depends on (seed, i) alone.

    Args:
        count: 1 or more.
        size: (H, W) or one number for a square, 32 or more each.
        seed: 0 or more.
    """

    skipped: Sequence[str] = ()

    def __init__(self, count: int, size: int | Shape = 224, seed: int = 0) -> None:
        self.count = count
        self.size = (size, size) if isinstance(size, int) else size
        self.seed = seed
        if count < 1 or seed < 0 or min(self.size) < SMALLEST_SIDE:
            raise ValueError(
                f"SyntheticSource: expected count >= 1, seed >= 0 and sides >= {SMALLEST_SIDE}, "
                f"got count {count}, seed {seed}, size {size}"
            )

    @cached_property
    def names(self) -> list[str]:
        return [f"synthetic-{self.seed}-{index:06d}" for index in range(self.count)]

    @property
    def contents(self) -> list[str]:
        return self.names

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        index %= self.count
        rng = np.random.default_rng((self.seed, index))
        image, mask = _scene(self.size, is_tiny(index), rng)
        return Sample(name, image, mask)


def is_tiny(index: int) -> bool:
    """Whether picture `index` is one of those with less than 2 % of object."""
    return index % TINY_EVERY == TINY_EVERY - 1


def write_synthetic(folder: str | Path, count: int, size: int | Shape = 224, seed: int = 0) -> Path:
    """Write a synthetic data set as files, images/NAME.jpg and masks/NAME.png; returns the folder.

    Raises:
        UserError: a file of that name exists; nothing is overwritten.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    source = SyntheticSource(count, size, seed)
    for index in range(count):
        name, image, mask = source[index]
        for picture, path in (
            (image, folder / "images" / f"{name}.jpg"),
            (mask, folder / "masks" / f"{name}.png"),
        ):
            try:
                with open(path, "xb") as file:
                    Image.fromarray(picture).save(file, quality=95)
            except FileExistsError as error:
                raise UserError(f"{path} exists: choose an empty folder") from error
    return folder


def _scene(
    shape: Shape, tiny: bool, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    ground, other = _palette(rng, rng.uniform(15, 110))
    canvas = ground + texture(shape, rng) * (other - ground)
    average = canvas.mean((1, 2), keepdims=True)

    for _ in range(rng.integers(0, 4)):
        patch = draw_shape(shape, np.exp(rng.uniform(np.log(0.01), np.log(0.12))), rng)
        step = rng.normal(size=(3, 1, 1))
        shift = (rng.uniform(8, 22) * step / np.linalg.norm(step)).astype(np.float32)
        canvas[:, *patch.box] += patch.cover * shift

    cover = np.zeros(shape, np.float32)
    for area in _areas(tiny, rng):
        patch = draw_shape(shape, area, rng)
        _paint(canvas, patch, average, rng)
        np.maximum(cover[patch.box], patch.cover, out=cover[patch.box])

    light = np.float32(rng.uniform(0, 0.5)) * (smooth_noise(shape, 1, rng) - np.float32(0.5))
    canvas *= 1 + light
    grain = int(rng.integers(1, 9))
    canvas += rng.integers(-grain, grain + 1, shape, np.int8)
    image = np.stack(list(np.clip(canvas, 0, 255).astype(np.uint8)), axis=2)
    return image, np.rint(cover * 255).astype(np.uint8)


def _areas(tiny: bool, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Fractions of the picture that its objects are to cover."""
    if tiny:
        count = rng.integers(1, 3)
        return np.exp(rng.uniform(np.log(0.0025), np.log(0.0125 / count), count))
    count = rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])
    return np.exp(rng.uniform(np.log(0.03), np.log(0.3 / count), count))


def _paint(canvas: Canvas, patch: Patch, ground: Colour, rng: np.random.Generator) -> None:
    """Lay an object over the canvas in colours far enough from the ground's average."""
    distance = 0.0
    while distance < 70:
        first, second = _palette(rng, rng.uniform(0, 90))
        distance = float(np.linalg.norm((first + second) / 2 - ground))
    field = texture((patch.cover.shape[0], patch.cover.shape[1]), rng)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = 1 + np.float32(strength * np.cos(angle)) * patch.across
    light += np.float32(strength * np.sin(angle)) * patch.down
    colours = (first + field * (second - first)) * light
    below = canvas[:, *patch.box]
    below += patch.cover * (colours - below)


def _palette(rng: np.random.Generator, contrast: float) -> tuple[Colour, Colour]:
    """Two colours `contrast` apart (Euclidean, in levels), of natural rather than neon kind."""
    grey, tint = rng.uniform(25, 230), rng.normal(0, 28, (3, 1, 1))
    step = rng.normal(size=(3, 1, 1)) + rng.choice([-1.5, 1.5])
    first = np.clip(grey + tint, 5, 250)
    second = np.clip(first + contrast * step / np.linalg.norm(step), 5, 250)
    return first.astype(np.float32), second.astype(np.float32)
