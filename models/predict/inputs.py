"""Which images a prediction is to be made for."""

from pathlib import Path

from lmwp_models.data.decode import SUFFIXES
from lmwp_models.data.folders import find_layout, pictures
from lmwp_models.errors import UserError


def find_inputs(path: Path, out: Path) -> tuple[Path, list[Path]]:
    """The folder that the layout of the maps starts from, and the images below it.

    A file is itself; a folder gives all its images, those of its subfolders included; a data set
    with a folder of masks gives the images of its image folder only. `out`, where the maps go, is
    not searched: maps of an earlier run are no images to predict.

    Raises:
        UserError: nothing there, or no image in the folder.
    """
    if path.is_file():
        return path.parent, [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such image or folder")
    root = _image_folder(path) or path
    images = _images_below(root, {out.resolve()})
    if not images:
        known = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{path}: no image in this folder or below it (looked for {known})")
    return root, images


def _images_below(folder: Path, seen: set[Path]) -> list[Path]:
    """Images of a folder tree, each folder entered once: links may lead back to one above."""
    if folder.resolve() in seen:
        return []
    seen.add(folder.resolve())
    images = pictures(folder)
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith((".", "__MACOSX")):
            images += _images_below(_image_folder(inner) or inner, seen)
    return images


def _image_folder(folder: Path) -> Path | None:
    """The folder of images in a data set that keeps its masks in another one."""
    try:
        layout = find_layout(folder)
    except UserError:
        return None
    if layout.base != folder or layout.images == layout.masks:
        return None
    return layout.images
