"""Saliency maps for an image, or for every image of a folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lmwp_models.data.decode import read_image
from lmwp_models.data.panels import write_png
from lmwp_models.errors import UserError
from lmwp_models.predict.inputs import find_inputs
from lmwp_models.predict.naming import map_names, panel_name
from lmwp_models.predict.panel import overlay_panel
from lmwp_models.predict.predictor import Image, Predictor


class Failure(NamedTuple):
    """An image that could not be read, and why in one line."""

    path: Path
    reason: str


@dataclass
class PredictionResult:
    """The maps written, in the order of the images, and the images left out."""

    written: list[Path] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def predict_folder(
    predictor: Predictor,
    images: Path,
    out: Path,
    *,
    overlay: bool = False,
    overwrite: bool = False,
    batch_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> PredictionResult:
    """Write the saliency map of every image as a PNG of the image's own size.

    Folders are searched with their subfolders (see `find_inputs`), whose layout is kept under
    `out`. A map is named after its image (`a.jpg` -> `a.png`; see `map_names` for images of one
    stem) and is written whole or not at all. An image that cannot be read is reported and does
    not stop the others.

    Args:
        predictor: what makes the maps.
        images: an image file, or a folder.
        out: folder for the maps, made if missing.
        overlay: also write `<map>.overlay.png`, image, map and overlay side by side.
        overwrite: replace files of an earlier run.
        batch_size: images read and predicted together; more than one pays on a GPU.
        on_progress: called with (images done, images in all).

    Raises:
        UserError: no image is found, `out` holds files of the same names or cannot be written,
            or the network's output is not finite.
    """
    jobs = _plan(Path(images), Path(out))
    _protect(jobs, overlay=overlay, overwrite=overwrite)
    result = PredictionResult()
    for start in range(0, len(jobs), batch_size):
        readable = []
        for job in jobs[start : start + batch_size]:
            try:
                readable.append((job, read_image(job.image)))
            except UserError as error:
                result.failed.append(Failure(job.image, str(error)))
        maps = predictor.predict_batch([image for _, image in readable])
        for (job, image), saliency in zip(readable, maps, strict=True):
            _write(job.target, saliency)
            if overlay:
                _write(panel_name(job.target), overlay_panel(image, saliency))
            result.written.append(job.target)
        if on_progress:
            on_progress(min(start + batch_size, len(jobs)), len(jobs))
    return result


class _Job(NamedTuple):
    image: Path
    target: Path


def _plan(images: Path, out: Path) -> list[_Job]:
    if images.resolve() == out.resolve():
        raise UserError(f"maps cannot go into the folder of the images ({out}): give another")
    root, found = find_inputs(images, out)
    names = map_names([path.relative_to(root) for path in found])
    return [_Job(image, out / name) for image, name in zip(found, names, strict=True)]


def _protect(jobs: list[_Job], *, overlay: bool, overwrite: bool) -> None:
    """Raise UserError rather than overwrite an image, or a file of an earlier run unasked."""
    targets = [job.target for job in jobs]
    if overlay:
        targets += [panel_name(target) for target in targets]
    images = {job.image.resolve() for job in jobs}
    existing = [target for target in targets if target.exists()]
    for target in existing:
        if target.resolve() in images:
            raise UserError(f"{target} is an image to predict: give another folder for the maps")
    if existing and not overwrite:
        raise UserError(
            f"{len(existing)} of {len(targets)} files exist already, such as {existing[0]}: "
            "allow overwriting or give another folder"
        )


def _write(path: Path, picture: Image) -> None:
    try:
        write_png(path, picture)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
