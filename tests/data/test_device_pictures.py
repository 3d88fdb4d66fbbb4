"""Batches made from pictures on the device are those the loader makes."""

import pytest
import torch

from lmwp_models.data import (
    AugmentConfig,
    DevicePictures,
    MemorySource,
    SaliencyDataset,
    SyntheticSource,
)
from lmwp_models.data.opening import open_source
from lmwp_models.errors import UserError

CPU = torch.device("cpu")


class Mixed:
    """Pictures of several sizes."""

    skipped = ()

    def __init__(self) -> None:
        self._sources = [SyntheticSource(2, size, 1) for size in ((61, 47), (64, 96), (200, 33))]

    @property
    def names(self) -> list[str]:
        return [f"{i}" for i in range(len(self))]

    contents = names

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int):
        return self._sources[index % 3][index // 3]


@pytest.mark.parametrize("size", [(48, 64), (128, 80), (61, 47)])
@pytest.mark.parametrize(
    "augment", [None, AugmentConfig(), AugmentConfig(crop=0, flip=1, vertical=0.5)]
)
def test_batches_are_those_of_the_data_set(size, augment) -> None:
    dataset = SaliencyDataset(Mixed(), size, augment, seed=5)
    pictures = DevicePictures(dataset, CPU)
    indices = [5, 0, 2, 1, 0]
    for epoch in (0, 7):
        dataset.set_epoch(epoch)
        images, masks = pictures.batch(epoch, indices)
        expected = [dataset[i] for i in indices]
        torch.testing.assert_close(images, torch.stack([e[0] for e in expected]), atol=2e-5, rtol=0)
        torch.testing.assert_close(masks, torch.stack([e[1] for e in expected]), atol=1e-5, rtol=0)


def test_pictures_that_do_not_fit_are_refused_in_one_line() -> None:
    class Endless(Mixed):
        def __getitem__(self, index: int):
            huge = torch.zeros((), dtype=torch.uint8).expand(1 << 28, 1 << 28).numpy()
            return super().__getitem__(index)._replace(mask=huge)

    with pytest.raises(UserError, match=r"data.cache = 'device': .* GiB, more than cpu has left"):
        DevicePictures(SaliencyDataset(Endless(), 32), CPU)


def test_memory_holds_what_the_disk_gave(small_set, tmp_path) -> None:
    source = open_source(small_set, cache_dir=tmp_path)
    seen = []
    memory = MemorySource(source, lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]
    assert (memory.names, memory.contents) == (source.names, source.contents)
    for ours, theirs in zip(memory, (source[i] for i in range(12)), strict=True):
        assert ours.name == theirs.name
        assert (ours.image == theirs.image).all()
        assert (ours.mask == theirs.mask).all()
        assert ours.image.base is None  # no view of the file
