"""Training samples: a source, resized and augmented, the same for any number of workers."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lmwp_models.data.augment import AugmentConfig, Crop, apply_crop, draw_crop
from lmwp_models.data.sources import Source
from lmwp_models.data.transforms import Size, to_input, to_target


class SaliencyDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pairs (image float32 [3, H, W] normalised, mask float32 [1, H, W] in [0, 1]).

    The augmentation of a sample is drawn from (seed, epoch, index) alone, so neither the number of
    workers nor a resumed run changes a picture.

    Args:
        source: where the pictures come from.
        size: network input size, (H, W) or one number for a square.
        augment: how to vary them; None leaves them whole.
        seed: 0 or more.
    """

    def __init__(
        self,
        source: Source,
        size: int | Size,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        if seed < 0:
            raise ValueError(f"SaliencyDataset: seed must be 0 or more, got {seed}")
        self.source = source
        self.size = (size, size) if isinstance(size, int) else size
        self.augment = augment
        self.seed = seed
        # Shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation is drawn; call before iterating over a loader."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        _, image, mask = self.source[index]
        height, width = mask.shape
        crop = self.crop((height, width), int(self._epoch), index)
        return (
            to_input(apply_crop(image, crop), self.size),
            to_target(apply_crop(mask, crop), self.size),
        )

    def crop(self, shape: tuple[int, int], epoch: int, index: int) -> Crop:
        """How picture `index`, of (H, W), is cropped and flipped in an epoch."""
        if self.augment is None:
            return Crop(0, 0, *shape)
        return draw_crop(shape, self.augment, np.random.default_rng((self.seed, epoch, index)))


class EpochSampler(Sampler[int]):
    """The indices 0 .. count - 1 in an order given by (seed, epoch) alone.

    `set_epoch(epoch, start)` begins `start` samples into that epoch, as a run resumed there does;
    the length is what is left.
    """

    def __init__(self, count: int, seed: int = 0, shuffle: bool = True) -> None:
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and how many of its samples are done already."""
        if not 0 <= start <= self.count:
            raise ValueError(f"EpochSampler: start must be in 0 .. {self.count}, got {start}")
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return self.count - self.start

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return iter(order[self.start :].tolist())
