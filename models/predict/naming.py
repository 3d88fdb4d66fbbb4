"""Where the maps of a set of images go."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TypeVar

AnyPath = TypeVar("AnyPath", bound=PurePath)


def map_names(images: Sequence[PurePath]) -> list[PurePath]:
    """One `.png` name per image path, in the same folders.

    `a.jpg` becomes `a.png`; images that share a folder and a stem keep their extensions:
    `a.jpg` and `a.webp` become `a.jpg.png` and `a.webp.png`. No map or panel shares its name with
    another, even where case is ignored.
    """
    sharing = Counter(_folded(image.with_suffix("")) for image in images)
    taken: set[str] = set()
    names = []
    for image in images:
        alone = sharing[_folded(image.with_suffix(""))] == 1
        for name in _candidates(image, alone):
            claimed = {_folded(name), _folded(panel_name(name))}
            if taken.isdisjoint(claimed):
                break
        taken |= claimed
        names.append(name)
    return names


def panel_name(map_name: AnyPath) -> AnyPath:
    """Where the overlay panel of a map goes: `a.png` -> `a.overlay.png`."""
    return map_name.with_suffix(".overlay.png")


def _candidates(image: PurePath, alone: bool) -> Iterator[PurePath]:
    if alone:
        yield image.with_suffix(".png")
    yield image.with_name(f"{image.name}.png")
    copy = 2
    while True:
        yield image.with_name(f"{image.name}-{copy}.png")
        copy += 1


def _folded(path: PurePath) -> str:
    return str(path).casefold()
