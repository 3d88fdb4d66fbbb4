"""Finding image and mask pairs in the folder layouts that saliency data sets come in."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from os.path import relpath
from pathlib import Path
from typing import NamedTuple

from lmwp_models.data.decode import SUFFIXES
from lmwp_models.data.folders import (
    files_of,
    find_layout,
    image_folders,
    inventory,
    pictures,
    some,
)
from lmwp_models.data.pair_lists import names_two_files, read_entries, resolve_pairs, stem
from lmwp_models.errors import UserError

OnSkip = Callable[[str], None]

_LIST_NAME = re.compile(r"(train|val|test)(_?pair)?\.(txt|lst)", re.IGNORECASE)


class Pair(NamedTuple):
    """An image file with its mask file."""

    name: str
    image: Path
    mask: Path


def find_pairs(
    root: str | Path, list_file: str | Path | None = None, *, on_skip: OnSkip | None = None
) -> list[Pair]:
    """Find the image and mask pairs of a data set, sorted by name.

    Recognised below `root`: a folder of images beside a folder of masks, told by their names
    (DUTS-TR-Image + DUTS-TR-Mask, images + ground_truth_mask, DUT-OMRON-image +
    pixelwiseGT-new-PNG, ...), or one folder with .jpg images and .png masks mixed; each also when
    nested in further folders. Files pair by stem, case ignored where it has to be.

    `list_file` chooses among the files: one stem or file name a line, or an image path and a mask
    path a line (relative to `root` or to the list). Without it, a single train.txt, val.txt or
    test.txt (or .lst) beside the folders is used.

    Args:
        on_skip: called with one line for each file that has no partner, which is then left out;
            by default such files are an error.

    Raises:
        UserError: no layout is recognised, several data sets are, or files have no partner.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"data set {root}: {'not a folder' if root.exists() else 'not found'}")
    chosen = _own_list(root) if list_file is None else _find_list(root, Path(list_file))
    if chosen is None:
        layout = find_layout(root)
        if layout.base != root and (own := _own_list(layout.base)) is not None:
            return find_pairs(layout.base, own, on_skip=on_skip)
        images, masks = files_of(layout)
        return _match(images, masks, (layout.images, layout.masks), on_skip)

    entries = read_entries(chosen)
    if names_two_files(entries):
        couples, lost = resolve_pairs(entries, [root, chosen.parent])
        _report(lost, chosen, "no such files", on_skip)
        return _named(couples, root)
    layout = find_layout(root)
    images, masks = files_of(layout)
    wanted = {stem(entry).casefold(): entry for entry in entries}
    have = {path.stem.casefold() for path in images}
    lost = [entry for key, entry in wanted.items() if key not in have]
    _report(lost, chosen, f"no such image in {layout.images}", on_skip)
    images = [path for path in images if path.stem.casefold() in wanted]
    masks = [path for path in masks if path.stem.casefold() in wanted]
    return _match(images, masks, (layout.images, layout.masks), on_skip)


def find_images(root: str | Path) -> list[Path]:
    """The pictures to predict on, sorted by name: a file itself, or those directly in a folder.

    A data set's folder gives the pictures of its image folder; a .png beside another picture of
    the same stem is that one's mask, not a picture.

    Raises:
        UserError: nothing there.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"{root}: not found")
    found = pictures(root)
    if not found and len(folders := image_folders(root)) == 1:
        found = pictures(folders[0])
    if not found:
        raise UserError(f"{root}: no pictures ({', '.join(sorted(SUFFIXES))}); {inventory(root)}")
    others = {path.stem.casefold() for path in found if path.suffix.lower() != ".png"}
    return [p for p in found if p.suffix.lower() != ".png" or p.stem.casefold() not in others]


def _match(
    images: Sequence[Path],
    masks: Sequence[Path],
    folders: tuple[Path, Path],
    on_skip: OnSkip | None,
) -> list[Pair]:
    """Pair by exact stem first, then what is left by stem without case."""
    for paths, folder, kind in ((images, folders[0], "images"), (masks, folders[1], "masks")):
        if not paths:
            raise UserError(f"no {kind} in {folder}; {inventory(folder)}")
        _refuse_twins(paths, folder)
    partner_of = {mask.stem: mask for mask in masks}
    found = [(image, partner_of.pop(image.stem)) for image in images if image.stem in partner_of]
    matched = {image for image, _ in found}
    left: dict[str, list[Path]] = defaultdict(list)
    for mask in partner_of.values():
        left[mask.stem.casefold()].append(mask)
    lonely = []
    for image in images:
        if image not in matched:
            if candidates := left[image.stem.casefold()]:
                found.append((image, candidates.pop(0)))
            else:
                lonely.append(image.name)
    unused = [mask.name for candidates in left.values() for mask in candidates]
    _report(lonely, folders[0], f"no mask in {folders[1]}", on_skip)
    _report(unused, folders[1], f"no image in {folders[0]}", on_skip)
    return _named(found, folders[0])


def _refuse_twins(paths: Sequence[Path], folder: Path) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        if (twin := seen.setdefault(path.stem, path)) is not path:
            raise UserError(f"{folder}: holds both {twin.name} and {path.name}; keep one of them")


def _named(couples: Sequence[tuple[Path, Path]], root: Path) -> list[Pair]:
    """Pairs sorted by name: the stem, with its folders where stems alone would clash."""
    unique = len({image.stem for image, _ in couples}) == len(couples)
    pairs = [
        Pair(image.stem if unique else relpath(image.with_suffix(""), root), image, mask)
        for image, mask in couples
    ]
    return sorted(pairs, key=lambda pair: (pair.name.casefold(), pair.name))


def _report(lost: list[str], where: Path, what: str, on_skip: OnSkip | None) -> None:
    """Skip the lost ones, or raise one line that counts them and names the first few."""
    if on_skip is not None:
        for name in lost:
            on_skip(f"{where}: {name}: {what}")
    elif lost:
        raise UserError(f"{where}: {len(lost)} without a partner, {what}: {some(lost)}")


def _find_list(root: Path, list_file: Path) -> Path:
    for path in (list_file, root / list_file):
        if path.is_file():
            return path
    raise UserError(f"list file {list_file}: not found, neither here nor in {root}")


def _own_list(folder: Path) -> Path | None:
    lists = sorted(path for path in folder.iterdir() if _LIST_NAME.fullmatch(path.name))
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise UserError(f"data set {folder}: holds several lists ({names}); name the one to use")
    return lists[0] if lists else None
