"""Telling image folders from mask folders by their names, and finding them below a root."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from lmwp_models.data.decode import SUFFIXES
from lmwp_models.errors import UserError

LOOKED_FOR = (
    "X-Image + X-Mask, images + masks, image + mask, imgs + gt, images + GT, "
    "images + ground_truth_mask, or one folder of .jpg images with .png masks"
)

_IMAGE_WORDS = frozenset({"image", "images", "img", "imgs"})
_MASK_WORDS = frozenset({"mask", "masks", "gt", "gts", "ground", "groundtruth", "truth", "truths"})
_STRAY_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_DEPTH = 3
_NAMED = 3


class Layout(NamedTuple):
    """Where a data set keeps its files."""

    base: Path
    images: Path
    masks: Path  # the same folder where images and masks lie side by side


def find_layout(root: Path) -> Layout:
    """The one data set in a folder, or in folders inside it.

    Raises:
        UserError: there is none, or more than one.
    """
    layouts = _layouts(root)
    if len(layouts) == 1:
        return layouts[0]
    if not layouts:
        raise UserError(
            f"data set {root}: no images with masks found; looked for {LOOKED_FOR}; "
            f"{inventory(root)}"
        )
    shown = some([f"{x.images.relative_to(root)} + {x.masks.relative_to(root)}" for x in layouts])
    raise UserError(f"data set {root}: holds {len(layouts)} data sets ({shown}); name one of them")


def files_of(layout: Layout) -> tuple[list[Path], list[Path]]:
    """The image files and the mask files, each sorted by name."""
    images = pictures(layout.images)
    if layout.masks != layout.images:
        return images, pictures(layout.masks)
    masks = [path for path in images if path.suffix.lower() == ".png"]
    return [path for path in images if path.suffix.lower() != ".png"], masks


def pictures(folder: Path) -> list[Path]:
    """Files with the suffix of a picture directly in a folder, sorted by name."""
    names = [
        entry.name
        for entry in _scan(folder)
        if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.is_dir()
    ]
    return [folder / name for name in sorted(names, key=lambda name: (name.casefold(), name))]


def image_folders(folder: Path) -> list[Path]:
    """Folders directly inside that are named as holding images."""
    return [unwrap(path) for path in _folders(folder) if _role(path.name) == "image"]


def unwrap(folder: Path) -> Path:
    """X-Image/X-Image/*.jpg: step into the only folder of a folder without pictures."""
    inner = _folders(folder)
    return inner[0] if len(inner) == 1 and not pictures(folder) else folder


def inventory(folder: Path) -> str:
    """What is in a folder, in a few words."""
    folders = [path.name for path in _folders(folder)]
    files = sum(not entry.is_dir() for entry in _scan(folder))
    return f"found {files} file(s) and {f'folders {some(folders)}' if folders else 'no folders'}"


def some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _scan(folder: Path) -> list["os.DirEntry[str]"]:
    """Directory entries without the litter of operating systems and editors."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.name.casefold() not in _STRAY_NAMES
            ]
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror or error}") from error


def _folders(folder: Path) -> list[Path]:
    return sorted(folder / entry.name for entry in _scan(folder) if entry.is_dir())


def _words(name: str) -> list[str]:
    """'pixelwiseGT-new-PNG' -> ['pixelwise', 'gt', 'new', 'png']."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def _role(name: str) -> str | None:
    """What a folder of that name holds: 'mask', 'image' or neither."""
    words = set(_words(name))
    if words & _MASK_WORDS:
        return "mask"
    return "image" if words & _IMAGE_WORDS else None


def _prefix(name: str) -> list[str]:
    """The words that tell one data set's folders from another's."""
    return [word for word in _words(name) if word not in _IMAGE_WORDS | _MASK_WORDS]


def _layouts(folder: Path, depth: int = _DEPTH) -> list[Layout]:
    """Every data set in a folder; folders below one that is recognised are not searched."""
    inner = _folders(folder)
    images = [path for path in inner if _role(path.name) == "image"]
    masks = [path for path in inner if _role(path.name) == "mask"]
    couples = [
        (image, mask)
        for image in images
        for mask in masks
        if len(images) == len(masks) == 1 or _prefix(image.name) == _prefix(mask.name)
    ]
    if couples:
        return [Layout(folder, unwrap(image), unwrap(mask)) for image, mask in couples]
    if _is_mixed(folder):
        return [Layout(folder, folder, folder)]
    if depth == 0:
        return []
    return [layout for path in inner for layout in _layouts(path, depth - 1)]


def _is_mixed(folder: Path) -> bool:
    """Whether some stem is there both as a .png and as another kind of picture."""
    stems: dict[bool, set[str]] = defaultdict(set)
    for path in pictures(folder):
        stems[path.suffix.lower() == ".png"].add(path.stem.casefold())
    return not stems[True].isdisjoint(stems[False])
