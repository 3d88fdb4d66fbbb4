"""Which pictures each forward pass takes, and how they get to the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lmwp_models.data import EpochSampler, SaliencyDataset
from lmwp_models.data.device_pictures import DevicePictures
from lmwp_models.errors import UserError
from lmwp_models.training import distributed
from lmwp_models.training.recipe import DataSection

Indices = list[list[int]]  # pictures of each forward pass


class Part(NamedTuple):
    """Input of one forward pass: images [N, 3, H, W] normalised, masks [N, 1, H, W] in [0, 1]."""

    names: list[str]
    images: Tensor
    masks: Tensor


class Plan:
    """Deals the pictures of an epoch to steps, passes and processes; a short last step is dropped.

    A step takes `batch_size` pictures in `accumulate` passes, and every process its share of each
    pass, so a run sees the same joint batches on any number of processes.

    Raises:
        UserError: the batch cannot be dealt out evenly, or there are too few pictures.
    """

    def __init__(self, pictures: int, batch_size: int, accumulate: int, seed: int) -> None:
        if pictures < batch_size:
            raise UserError(
                f"train.batch_size = {batch_size}: larger than the training set of "
                f"{pictures} pictures; lower it or give more pictures"
            )
        shares = accumulate * distributed.size()
        if batch_size % shares or batch_size < 2 * shares:
            raise UserError(
                f"train.batch_size = {batch_size}: expected a multiple of {shares}, at least "
                f"{2 * shares}, for train.accumulate = {accumulate} on {distributed.size()} "
                "process(es): batch norms need two pictures a pass"
            )
        self.accumulate = accumulate
        self.steps_per_epoch = pictures // batch_size
        self._batch_size, self._pass_size = batch_size, batch_size // accumulate
        self._sampler = EpochSampler(pictures, seed)

    def passes(self, epoch: int, steps_done: int) -> Indices:
        """This process's share of every pass that is left of an epoch."""
        self._sampler.set_epoch(epoch, start=steps_done * self._batch_size)
        order = list(self._sampler)
        count = (self.steps_per_epoch - steps_done) * self.accumulate
        share = self._pass_size // distributed.size()
        firsts = [i * self._pass_size + distributed.rank() * share for i in range(count)]
        return [order[first : first + share] for first in firsts]


class Feed(Protocol):
    """Makes the input of the passes of an epoch, on the device that trains."""

    def __call__(self, epoch: int, passes: Indices) -> Iterator[Part]: ...


class LoaderFeed:
    """Pictures are cropped, flipped and resized on the CPU by worker processes."""

    def __init__(
        self, dataset: SaliencyDataset, device: torch.device, workers: int | None = None
    ) -> None:
        if workers is None:
            workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
        self._dataset, self._device, self._workers = dataset, device, workers

    def __call__(self, epoch: int, passes: Indices) -> Iterator[Part]:
        self._dataset.set_epoch(epoch)
        loader = DataLoader(
            self._dataset,
            batch_sampler=passes,
            num_workers=self._workers,
            pin_memory=self._device.type == "cuda",
        )
        names = self._dataset.source.names
        for indices, (images, masks) in zip(passes, loader, strict=True):
            yield Part(
                [names[i] for i in indices],
                images.to(self._device, non_blocking=True),
                masks.to(self._device, non_blocking=True),
            )


class DeviceFeed:
    """Pictures lie decoded on the device, and batches are made there."""

    def __init__(self, dataset: SaliencyDataset, device: torch.device) -> None:
        self._names = dataset.source.names
        self._pictures = DevicePictures(dataset, device)

    def __call__(self, epoch: int, passes: Indices) -> Iterator[Part]:
        for indices in passes:
            images, masks = self._pictures.batch(epoch, indices)
            yield Part([self._names[i] for i in indices], images, masks)


def make_feed(dataset: SaliencyDataset, options: DataSection, device: torch.device) -> Feed:
    """The feed that `data.cache` asks for."""
    if options.cache == "device":
        return DeviceFeed(dataset, device)
    return LoaderFeed(dataset, device, options.workers)
