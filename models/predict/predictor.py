"""From an image to its saliency map, by the test pipeline of the CSNet paper."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lmwp_models.data.transforms import resize, to_input
from lmwp_models.errors import UserError

Image: TypeAlias = NDArray[np.uint8]
Map: TypeAlias = NDArray[np.uint8]
InputSize: TypeAlias = tuple[int, int] | Literal["native"]


class Predictor:
    """Maps images to saliency maps of their own size.

    RGB / 255, bilinear resize to the input size, ImageNet normalisation, network, sigmoid,
    bilinear resize back, times 255 truncated to uint8. Both resizes have align_corners=False and
    no anti-aliasing. Truncation and the order of sigmoid and resize are part of the protocol:
    published scores move with either (Gao et al., ECCV 2020, released test code).

    Args:
        model: [N, 3, H, W] -> logits [N, 1, H, W], with an int attribute `size_multiple` and, if
            sides have to have a least length, `min_size`. It is moved to `device`, and put into
            evaluation mode whenever it predicts.
        input_size: (height, width) that every image is resized to, or "native": each side of the
            image rounded up to a multiple of `size_multiple`, at least to `min_size`.
        device: where the network runs.

    Raises:
        UserError: `input_size` is not a multiple of `size_multiple`, or smaller than `min_size`.
    """

    def __init__(
        self,
        model: nn.Module,
        input_size: InputSize = (224, 224),
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.input_size = input_size
        multiple = model.size_multiple
        if not isinstance(multiple, int):
            raise TypeError(f"model.size_multiple must be an int, got {multiple!r}")
        self._multiple = multiple
        self._least: int = getattr(model, "min_size", multiple)
        if input_size != "native":
            height, width = input_size
            fitting = self._fitting(height, width)
            if fitting != (height, width):
                raise UserError(
                    f"input size {height}x{width}: this network needs multiples of "
                    f"{self._multiple} from {self._least} on, such as "
                    f"{fitting[0]}x{fitting[1]}, or 'native'"
                )

    def __call__(self, image: Image) -> Map:
        """Saliency map, uint8 [H, W], of an RGB image, uint8 [H, W, 3].

        Raises:
            UserError: the network's output is not finite.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[Image]) -> list[Map]:
        """Maps of several images in their order; those of one input size run as one batch.

        Raises:
            UserError: the network's output is not finite.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            groups.setdefault(self.size_for(image), []).append(i)
        maps: dict[int, Map] = {}
        for size, members in groups.items():
            batch = torch.stack([to_input(images[i], size) for i in members])
            for i, saliency in zip(members, self._saliency(batch), strict=True):
                maps[i] = _to_map(saliency, images[i].shape[:2])
        return [maps[i] for i in range(len(images))]

    def size_for(self, image: Image) -> tuple[int, int]:
        """(height, width) at which the network sees this image."""
        if self.input_size == "native":
            return self._fitting(*image.shape[:2])
        return self.input_size

    @torch.inference_mode()
    def _saliency(self, batch: torch.Tensor) -> torch.Tensor:
        """Probabilities [N, 1, H, W] in float32, on the CPU."""
        if self.model.training:
            self.model.eval()
        logits = self.model(batch.to(self.device)).float()
        if not torch.isfinite(logits).all():
            raise UserError("the network's output is not finite: its weights hold NaN or infinity")
        return torch.sigmoid(logits).cpu()

    def _fitting(self, height: int, width: int) -> tuple[int, int]:
        sides = (max(side, self._least) for side in (height, width))
        height, width = (-(-side // self._multiple) * self._multiple for side in sides)
        return height, width


def _to_map(saliency: torch.Tensor, size: tuple[int, int]) -> Map:
    resized = resize(saliency[None], size)[0, 0]
    return (resized * 255).to(torch.uint8).numpy()
