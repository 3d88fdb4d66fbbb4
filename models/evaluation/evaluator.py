"""Scores of a set of saliency maps under one or both protocols, as a stream."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from lmwp_models.errors import UserError
from lmwp_models.evaluation import pysod, salmetric
from lmwp_models.evaluation.levels import Curve, Gray, Statistics

Scores: TypeAlias = dict[str, dict[str, float]]
"""Protocol -> metric -> score."""


class Protocol(NamedTuple):
    """One way to score: per-image statistics, and scores from their means over images."""

    measure: Callable[[Gray, Gray], Statistics]
    summarise: Callable[[Statistics], dict[str, float]]


PROTOCOLS = {
    "salmetric": Protocol(salmetric.measure, salmetric.summarise),
    "pysod": Protocol(pysod.measure, pysod.summarise),
}


class Evaluator:
    """Running means of per-image statistics under each protocol.

    Evaluators fed with parts of a set can be merged. Scores are keyed by protocol and metric, as
    in `compute()["salmetric"]["max_f_dataset"]`: a score without its protocol means nothing.

    Raises:
        UserError: an unknown protocol.
    """

    def __init__(self, protocols: Iterable[str] = tuple(PROTOCOLS)) -> None:
        self.protocols = tuple(protocols)
        for name in self.protocols:
            if name not in PROTOCOLS:
                known = ", ".join(PROTOCOLS)
                raise UserError(f"unknown evaluation protocol '{name}': expected one of {known}")
        self.count = 0
        self._sums: dict[str, Statistics] = {name: {} for name in self.protocols}

    def update(self, prediction: Gray, mask: Gray) -> None:
        """Take in one image: map and ground truth, both uint8 [H, W].

        Raises:
            ValueError: wrong dtype, or the sizes differ.
        """
        self.add(self.measure(prediction, mask))

    def measure(self, prediction: Gray, mask: Gray) -> dict[str, Statistics]:
        """Statistics of one image per protocol, leaving the evaluator as it is (thread-safe)."""
        return {name: PROTOCOLS[name].measure(prediction, mask) for name in self.protocols}

    def add(self, statistics: dict[str, Statistics]) -> None:
        """Take in what `measure` returned."""
        self._accumulate(statistics, 1)

    def merge(self, other: "Evaluator") -> None:
        """Take in all images another evaluator of the same protocols has seen."""
        if set(other.protocols) != set(self.protocols):
            raise ValueError(f"cannot merge protocols {other.protocols} into {self.protocols}")
        self._accumulate(other._sums, other.count)

    def compute(self) -> Scores:
        """Scores over all images so far.

        Raises:
            ValueError: no image has been taken in.
        """
        return summarise(self._means())

    def curves(self) -> dict[str, dict[str, Curve]]:
        """Means [256] over images at the thresholds 0..255, such as `["pysod"]["precision"]`.

        Raises:
            ValueError: no image has been taken in.
        """
        return {
            protocol: {name: mean for name, mean in means.items() if mean.ndim == 1}
            for protocol, means in self._means().items()
        }

    def _accumulate(self, statistics: dict[str, Statistics], count: int) -> None:
        self.count += count
        for protocol, sums in self._sums.items():
            for name, value in statistics[protocol].items():
                sums[name] = sums[name] + value if name in sums else value

    def _means(self) -> dict[str, Statistics]:
        if self.count == 0:
            raise ValueError("no image has been evaluated yet")
        return {
            protocol: {name: total / self.count for name, total in sums.items()}
            for protocol, sums in self._sums.items()
        }


def summarise(means: Mapping[str, Statistics]) -> Scores:
    """Scores from mean statistics, or from those of a single image."""
    return {protocol: PROTOCOLS[protocol].summarise(mean) for protocol, mean in means.items()}
