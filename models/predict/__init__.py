"""Saliency maps of images and folders."""

from lmwp_models.predict.folder import Failure, PredictionResult, predict_folder
from lmwp_models.predict.panel import overlay, overlay_panel
from lmwp_models.predict.predictor import InputSize, Predictor

__all__ = [
    "Failure",
    "InputSize",
    "PredictionResult",
    "Predictor",
    "overlay",
    "overlay_panel",
    "predict_folder",
]
