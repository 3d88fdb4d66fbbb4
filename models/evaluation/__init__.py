"""Saliency scores under two named protocols: `salmetric` and `pysod`."""

from lmwp_models.evaluation.evaluator import PROTOCOLS, Evaluator, Scores
from lmwp_models.evaluation.run import Evaluation, ImageScores, evaluate, evaluate_maps

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Evaluator",
    "ImageScores",
    "Scores",
    "evaluate",
    "evaluate_maps",
]
