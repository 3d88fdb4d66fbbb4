"""Saliency maps on disk, matched with the pictures of a data set."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from lmwp_models.data.decode import read_image
from lmwp_models.data.transforms import resize
from lmwp_models.errors import UserError
from lmwp_models.evaluation.levels import Gray

NAMED = 5
"""How many missing maps an error names."""


def find_maps(folder: Path, names: Sequence[str]) -> list[Path]:
    """The PNG file of each name, in the order of the names, ignoring case.

    Subfolders count: a map is found by the whole name (`set/a` -> `set/a.png`), else by its last
    part alone (`a.png` anywhere in the folder).

    Raises:
        UserError: not a folder, or maps are missing or ambiguous.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of PNG maps")
    by_path: dict[str, Path] = {}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.casefold() == ".png":
            by_path[path.relative_to(folder).with_suffix("").as_posix().casefold()] = path
            by_stem[path.stem.casefold()].append(path)

    found, missing = [], []
    for name in names:
        key = name.casefold()
        candidates = by_stem[PurePosixPath(key).name]
        if key in by_path:
            found.append(by_path[key])
        elif len(candidates) == 1:
            found.append(candidates[0])
        elif candidates:
            raise UserError(
                f"{folder}: both {candidates[0]} and {candidates[1]} could be the map of '{name}'"
            )
        else:
            missing.append(name)
    if missing:
        listed = ", ".join(f"{name}.png" for name in missing[:NAMED])
        more = ", ..." if len(missing) > NAMED else ""
        raise UserError(
            f"{folder}: {len(missing)} of {len(names)} maps are missing: {listed}{more}"
        )
    return found


def read_map(path: Path) -> Gray:
    """A grey map as uint8 [H, W], its levels as stored (16 bits are scaled to 8).

    Raises:
        UserError: the file is broken, or in colour.
    """
    red, green, blue = read_image(path).transpose(2, 0, 1)
    if (red != green).any() or (red != blue).any():
        raise UserError(f"{path}: expected a grey saliency map, got a picture in colour")
    return red


def fit_map(saliency: Gray, size: tuple[int, int]) -> Gray:
    """The map resized to the ground truth's (height, width): bilinear, rounded to levels."""
    if saliency.shape == size:
        return saliency
    levels = torch.from_numpy(saliency.astype(np.float32))[None, None]
    resized: Gray = resize(levels, size)[0, 0].round().to(torch.uint8).numpy()
    return resized
