"""A training set held decoded on the device that trains, cropped, flipped and resized there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lmwp_models.data.augment import Crop
from lmwp_models.data.dataset import SaliencyDataset
from lmwp_models.data.transforms import normalise
from lmwp_models.errors import UserError

Span = tuple[int, int, bool]  # first pixel, count, whether it is read backwards


class DevicePictures:
    """The pictures of `dataset` on `device`, four bytes a pixel, and batches of them.

    A batch is that of `dataset` for the same epoch and indices, up to rounding: the same crops
    and flips, and the same bilinear resize, computed for all of its pictures at once.

    Raises:
        UserError: the pictures do not fit into the device's memory.
    """

    def __init__(self, dataset: SaliencyDataset, device: torch.device) -> None:
        self._dataset, self._device = dataset, device
        samples = [dataset.source[i] for i in range(len(dataset))]
        self._shapes = [sample.mask.shape for sample in samples]
        areas = [height * width for height, width in self._shapes]
        self._starts = [0, *np.cumsum(areas).tolist()]
        try:
            self._pixels = torch.empty((self._starts[-1], 4), dtype=torch.uint8, device=device)
        except RuntimeError as error:  # what running out of memory is depends on the device
            raise UserError(
                f"data.cache = 'device': the decoded pictures take {4 * sum(areas) / 2**30:.1f} "
                f"GiB, more than {device} has left; set data.max_side, or data.cache=ram"
            ) from error
        for start, area, (_, image, mask) in zip(self._starts, areas, samples, strict=False):
            pixels = np.concatenate([image.reshape(area, 3), mask.reshape(area, 1)], axis=1)
            self._pixels[start : start + area] = torch.from_numpy(pixels)

    def batch(self, epoch: int, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images [N, 3, H, W], normalised, and masks [N, 1, H, W] in [0, 1], float32."""
        crops = [self._dataset.crop(self._shapes[i], epoch, i) for i in indices]
        height, width = self._dataset.size
        upper, lower, down = self._taps([_rows(crop) for crop in crops], height)
        left, right, across = self._taps([_columns(crop) for crop in crops], width)
        starts = self._tensor([self._starts[i] for i in indices])[:, None]
        strides = self._tensor([self._shapes[i][1] for i in indices])[:, None]

        def levels(row: Tensor, column: Tensor) -> Tensor:
            places = (starts + row * strides)[:, :, None] + column[:, None]  # [N, H, W]
            return self._pixels[places].float()  # [N, H, W, 4]

        def line(row: Tensor) -> Tensor:
            return torch.lerp(levels(row, left), levels(row, right), across[:, None, :, None])

        blended = torch.lerp(line(upper), line(lower), down[:, :, None, None])
        picture = blended.permute(0, 3, 1, 2) * (1 / 255)  # [N, 4, H, W]
        return normalise(picture[:, :3]).contiguous(), picture[:, 3:].contiguous()

    def _taps(self, spans: Sequence[Span], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The two pixels that each of `count` places in a span lies between, and how far on.

        [N, count] each; as `F.interpolate` with align_corners=False places them.
        """
        first, length, flipped = self._tensor(spans).unsqueeze(-1).unbind(1)  # [N, 1] each
        places = torch.arange(count, device=self._device)
        at = ((places + 0.5) * (length / count) - 0.5).clamp_(min=0)
        low = at.to(torch.int64)
        high = torch.minimum(low + 1, length - 1)

        def stored(place: Tensor) -> Tensor:
            return first + torch.where(flipped > 0, length - 1 - place, place)

        return stored(low), stored(high), at - low

    def _tensor(self, values: Sequence[int] | Sequence[Span]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64).to(self._device, non_blocking=True)


def _rows(crop: Crop) -> Span:
    return crop.top, crop.height, crop.flip_axis == 0


def _columns(crop: Crop) -> Span:
    return crop.left, crop.width, crop.flip_axis == 1
