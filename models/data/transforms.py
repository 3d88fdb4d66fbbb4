"""From uint8 pictures to network input, by the rules of the evaluation protocol.

Resizing is bilinear with `align_corners=False` and without anti-aliasing, on levels in [0, 1];
normalisation uses the ImageNet statistics and comes after the resize.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_models.data.decode import ImageArray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Size = tuple[int, int]


def resize(x: Tensor, size: Size) -> Tensor:
    """Resize float [N, C, h, w] to [N, C, H, W]; returns `x` itself if it has that size."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def levels(picture: ImageArray, size: Size) -> Tensor:
    """uint8 [h, w, C] or [h, w] (any strides) resized to float32 [C, H, W] in [0, 1]."""
    x = torch.from_numpy(picture.astype(np.float32))
    x = x[None] if x.ndim == 2 else x.permute(2, 0, 1)
    return resize(x[None], size)[0].contiguous().mul_(1 / 255)


def normalise(x: Tensor) -> Tensor:
    """ImageNet normalisation of float [..., 3, H, W] in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=x.dtype, device=x.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=x.dtype, device=x.device).view(3, 1, 1)
    return (x - mean) / std


def denormalise(x: Tensor) -> Tensor:
    """Inverse of `normalise`, for showing what the network was given."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=x.dtype, device=x.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=x.dtype, device=x.device).view(3, 1, 1)
    return x * std + mean


def to_input(image: ImageArray, size: Size) -> Tensor:
    """RGB uint8 [h, w, 3] to the network's float32 [3, H, W]."""
    return normalise(levels(image, size))


def to_target(mask: ImageArray, size: Size) -> Tensor:
    """Mask uint8 [h, w] to float32 [1, H, W] in [0, 1], not binarised again."""
    return levels(mask, size)
