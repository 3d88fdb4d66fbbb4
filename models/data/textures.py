"""Procedural textures: scalar fields, float32 [H, W] in 0 .. 1."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float32]
Shape = tuple[int, int]


def texture(shape: Shape, rng: np.random.Generator) -> Field:
    """A field of a random kind: noise, stripes, gradient or checks."""
    kinds: tuple[Callable[[Shape, np.random.Generator], Field], ...]
    kinds = (noise, noise, stripes, gradient, checks)
    return kinds[rng.integers(len(kinds))](shape, rng)


def noise(shape: Shape, rng: np.random.Generator) -> Field:
    """Smooth noise, three octaves from a random frequency on."""
    cells = int(rng.integers(2, 12))
    persistence = rng.uniform(0.35, 0.8)
    field = smooth_noise(shape, cells, rng)
    for octave in (1, 2):
        field = field + np.float32(persistence**octave) * smooth_noise(
            shape, cells * 2**octave, rng
        )
    return stretch(field)


def stripes(shape: Shape, rng: np.random.Generator) -> Field:
    """Parallel waves, bent by slow noise."""
    y, x = grid(shape)
    angle, periods = rng.uniform(0, np.pi), rng.uniform(3, 20)
    bend = rng.uniform(0, 1.5) * smooth_noise(shape, 3, rng)
    phase = 2 * np.pi * periods * (x * np.cos(angle) + y * np.sin(angle)) + 2 * np.pi * bend
    return (0.5 + 0.5 * np.sin(phase)).astype(np.float32)


def gradient(shape: Shape, rng: np.random.Generator) -> Field:
    """A ramp across the picture, or rings of light around a point."""
    y, x = grid(shape)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        return stretch(x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    centre_y, centre_x = rng.random(2).astype(np.float32)
    return stretch(np.hypot(y - centre_y, x - centre_x))


def checks(shape: Shape, rng: np.random.Generator) -> Field:
    """A turned chessboard with soft edges."""
    y, x = grid(shape)
    angle, periods = rng.uniform(0, np.pi / 2), rng.uniform(2, 10)
    across = np.float32(2 * np.pi * periods * np.cos(angle))
    along = np.float32(2 * np.pi * periods * np.sin(angle))
    board = np.sin(x * across + y * along) * np.sin(y * across - x * along)
    return np.clip(0.5 + 2 * board, 0, 1, dtype=np.float32)


def smooth_noise(shape: Shape, cells: int, rng: np.random.Generator) -> Field:
    """Random values on a grid of cells x cells, interpolated bicubically."""
    values = Image.fromarray(rng.random((cells + 1, cells + 1), dtype=np.float32))
    return np.asarray(values.resize(shape[::-1], Image.Resampling.BICUBIC))


def grid(shape: Shape) -> tuple[Field, Field]:
    """Row and column coordinates 0 .. 1 as [H, 1] and [1, W]."""
    y = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(0, 1, shape[1], dtype=np.float32)[None]
    return y, x


def stretch(field: Field) -> Field:
    """Scale a field to span 0 .. 1."""
    low, high = field.min(), field.max()
    return (field - low) / max(high - low, np.float32(1e-6))
