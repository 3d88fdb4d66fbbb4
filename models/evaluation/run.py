"""Scoring a network, or maps on disk, on a whole data set."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmwp_models.data.sources import Source
from lmwp_models.errors import UserError
from lmwp_models.evaluation.evaluator import PROTOCOLS, Evaluator, Scores, summarise
from lmwp_models.evaluation.levels import Curve, Gray, Statistics
from lmwp_models.evaluation.maps import find_maps, fit_map, read_map

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (images done, images in all)."""


class ImageScores(NamedTuple):
    """The scores of one image taken by itself."""

    name: str
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of a data set.

    Attributes:
        count: images evaluated.
        metrics: protocol -> metric -> score.
        curves: protocol -> curve -> [256] over the thresholds 0..255.
        images: scores of every single image, where asked for, in the order of the source.
        resized: maps that had another size than their ground truth.
    """

    count: int
    metrics: Scores
    curves: dict[str, dict[str, Curve]] = field(repr=False)
    images: list[ImageScores] = field(default_factory=list, repr=False)
    resized: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Count and scores as plain JSON values."""
        return {"n": self.count, **self.metrics}


def evaluate(
    predict: Callable[[NDArray[np.uint8]], Gray],
    source: Source,
    *,
    protocols: Iterable[str] = tuple(PROTOCOLS),
    per_image: bool = False,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score what `predict` makes of every image of a source.

    Args:
        predict: RGB image, uint8 [H, W, 3], to saliency map, uint8 [H, W]. Called in the calling
            thread, one image after the other.
        source: images with ground truth.
        protocols: names of `PROTOCOLS`.
        per_image: also keep the scores of every single image.
        workers: threads that measure maps while the next one is predicted; 0 for none. The
            scores do not depend on it.
        on_progress: called after every image.

    Raises:
        UserError: the source is empty or cannot be read, or an unknown protocol.
        ValueError: a map has another size than its ground truth.
    """
    evaluator = Evaluator(protocols)

    def tasks() -> Iterator[Callable[[], _Measured]]:
        for i in range(len(source)):
            sample = source[i]
            saliency = predict(sample.image)
            yield partial(_measure, evaluator, sample.name, saliency, sample.mask)

    return _collect(evaluator, tasks(), len(source), per_image, workers, on_progress)


def evaluate_maps(
    folder: Path,
    source: Source,
    *,
    protocols: Iterable[str] = tuple(PROTOCOLS),
    per_image: bool = False,
    workers: int = 1,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score PNG maps on disk, matched with a source by name (see `find_maps`).

    A map of another size than its ground truth is resized to it, bilinearly, as the common tools
    do; `Evaluation.resized` counts them. Arguments are those of `evaluate`.

    Raises:
        UserError: maps are missing, broken or in colour; the source is empty or cannot be read;
            an unknown protocol.
    """
    evaluator = Evaluator(protocols)
    paths = find_maps(Path(folder), source.names)

    def measure(i: int) -> _Measured:
        sample = source[i]
        saliency = read_map(paths[i])
        fitted = fit_map(saliency, sample.mask.shape)
        measured = _measure(evaluator, sample.name, fitted, sample.mask)
        return measured._replace(resized=fitted is not saliency)

    tasks = (partial(measure, i) for i in range(len(source)))
    return _collect(evaluator, tasks, len(source), per_image, workers, on_progress)


class _Measured(NamedTuple):
    name: str
    statistics: dict[str, Statistics]
    resized: bool = False


def _measure(evaluator: Evaluator, name: str, saliency: Gray, mask: Gray) -> _Measured:
    try:
        return _Measured(name, evaluator.measure(saliency, mask))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _collect(
    evaluator: Evaluator,
    tasks: Iterator[Callable[[], _Measured]],
    total: int,
    per_image: bool,
    workers: int,
    on_progress: Progress | None,
) -> Evaluation:
    if total == 0:
        raise UserError("nothing to evaluate: the data set has no image with a ground truth")
    images = []
    resized = 0
    for done, measured in enumerate(_in_order(tasks, workers), start=1):
        evaluator.add(measured.statistics)
        resized += measured.resized
        if per_image:
            images.append(ImageScores(measured.name, summarise(measured.statistics)))
        if on_progress:
            on_progress(done, total)
    return Evaluation(evaluator.count, evaluator.compute(), evaluator.curves(), images, resized)


def _in_order(tasks: Iterator[Callable[[], _Measured]], workers: int) -> Iterator[_Measured]:
    """Results of the tasks in their order, a few of them being worked on ahead."""
    if workers == 0:
        for task in tasks:
            yield task()
        return
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[_Measured]] = deque()
        for task in tasks:
            pending.append(pool.submit(task))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
