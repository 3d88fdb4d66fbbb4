"""Procedural shapes: where a picture is covered, with edges one pixel soft."""

from typing import NamedTuple

import numpy as np

from lmwp_models.data.textures import Field, Shape

KINDS = ("ellipse", "polygon", "ring", "blob")


class Patch(NamedTuple):
    """A shape inside its bounding box."""

    box: tuple[slice, slice]  # rows and columns of the picture
    cover: Field  # 0 .. 1, [h, w] of the box
    across: Field  # position in the shape, -1 .. 1 from left to right
    down: Field  # the same from top to bottom


def draw_shape(shape: Shape, area: float, rng: np.random.Generator) -> Patch:
    """A random shape of about `area` (a fraction of the picture), its centre well inside."""
    height, width = shape
    aspect = np.exp(rng.uniform(-0.6, 0.6))
    mean_radius = np.sqrt(area * height * width / np.pi)
    radii = np.maximum(mean_radius * np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)]), 1.5)
    radii = radii.astype(np.float32)
    reach = min(1.35 * radii.max(), 0.45 * min(shape))
    centre_y = rng.uniform(reach, height - reach)
    centre_x = rng.uniform(reach, width - reach)

    box = _clip(centre_y, 1.5 * radii.max(), height), _clip(centre_x, 1.5 * radii.max(), width)
    y = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - np.float32(centre_y)
    x = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] - np.float32(centre_x)
    turn = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u = (x * cosine + y * sine) / radii[0]
    v = (y * cosine - x * sine) / radii[1]
    inside = _inside(KINDS[rng.integers(len(KINDS))], u, v, rng) * radii.min()
    cover = np.clip(inside + np.float32(0.5), 0, 1)
    span = radii.max()
    return Patch(box, cover, np.broadcast_to(x / span, cover.shape), y / span + 0 * x)


def _inside(kind: str, u: Field, v: Field, rng: np.random.Generator) -> Field:
    """How far inside the outline a point lies, in units of the shape's radius."""
    radius = np.sqrt(u * u + v * v)
    if kind == "ellipse":
        return 1 - radius
    if kind == "ring":
        width = np.float32(rng.uniform(0.18, 0.35))
        return width - np.abs(radius - (1 - width) * np.float32(1.1))
    angle = np.arctan2(v, u)
    if kind == "polygon":
        sector = np.float32(2 * np.pi / rng.integers(3, 8))
        return np.float32(1.1) - radius * np.cos(angle % sector - sector / 2) / np.cos(sector / 2)
    outline = np.ones_like(angle)
    for lobes in (2, 3, 5):
        depth, phase = rng.uniform(0, 0.32 / np.sqrt(lobes)), rng.uniform(0, 2 * np.pi)
        outline += np.float32(depth) * np.cos(lobes * angle + np.float32(phase))
    return outline - radius


def _clip(centre: float, reach: float, length: int) -> slice:
    return slice(max(0, int(centre - reach)), min(length, int(centre + reach) + 2))
