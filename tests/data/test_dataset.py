"""Training samples: reproducible for any worker count, epoch and resumption."""

import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from lmwp_models.data import (
    AugmentConfig,
    EpochSampler,
    FolderSource,
    SaliencyDataset,
    SubsetSource,
    SyntheticSource,
    find_pairs,
    open_source,
)
from lmwp_models.data.transforms import to_input, to_target


@pytest.fixture
def dataset() -> SaliencyDataset:
    return SaliencyDataset(SyntheticSource(10, (40, 52)), 32, AugmentConfig(), seed=5)


def everything(loader: DataLoader) -> list[torch.Tensor]:
    return [part for batch in loader for part in batch]


def test_shapes_and_ranges(dataset: SaliencyDataset) -> None:
    image, mask = dataset[0]
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.float32)
    assert (mask.shape, mask.dtype) == ((1, 32, 32), torch.float32)
    assert 0 <= mask.min() < mask.max() <= 1
    assert SaliencyDataset(dataset.source, (16, 48))[1][0].shape == (3, 16, 48)
    assert len(dataset) == 10


def test_without_augmentation_it_is_the_test_pipeline(dataset: SaliencyDataset) -> None:
    plain = SaliencyDataset(dataset.source, 32)
    sample = dataset.source[4]
    assert torch.equal(plain[4][0], to_input(sample.image, (32, 32)))
    assert torch.equal(plain[4][1], to_target(sample.mask, (32, 32)))


def test_image_and_mask_are_varied_alike(tmp_path: Path) -> None:
    """Where the image is its own mask, the pair stays equal under every crop and flip."""

    class Echo(SyntheticSource):
        def __getitem__(self, index: int):
            sample = super().__getitem__(index)
            return sample._replace(image=sample.mask[:, :, None].repeat(3, 2))

    dataset = SaliencyDataset(Echo(20, (70, 90)), 32, AugmentConfig())
    for i in range(20):
        image, mask = dataset[i]
        red = image[0] * 0.229 + 0.485
        torch.testing.assert_close(red, mask[0], atol=1e-5, rtol=0)


def test_drawn_from_seed_epoch_and_index_alone(dataset: SaliencyDataset) -> None:
    first = [dataset[i][0] for i in range(10)]
    torch.manual_seed(123)
    assert all(torch.equal(dataset[i][0], first[i]) for i in reversed(range(10)))
    dataset.set_epoch(1)
    changed = sum(not torch.equal(dataset[i][0], first[i]) for i in range(10))
    assert changed >= 9
    dataset.set_epoch(0)
    assert torch.equal(dataset[3][0], first[3])
    other = SaliencyDataset(dataset.source, 32, AugmentConfig(), seed=6)
    assert not torch.equal(other[3][0], first[3])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_give_the_same_pictures_and_follow_the_epoch(dataset: SaliencyDataset) -> None:
    alone = DataLoader(dataset, batch_size=4)
    staying = DataLoader(
        dataset,
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        want, got = everything(alone), everything(staying)
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


def test_pickled_for_workers(dataset: SaliencyDataset) -> None:
    dataset.set_epoch(2)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1][0], dataset[1][0])


def test_negative_seed(dataset: SaliencyDataset) -> None:
    with pytest.raises(ValueError, match="seed"):
        SaliencyDataset(dataset.source, 32, seed=-1)


def test_sources_agree(small_set: Path, tmp_path: Path) -> None:
    folder = FolderSource(find_pairs(small_set))
    cached = open_source(small_set, cache_dir=tmp_path)
    for source in (cached, SubsetSource(folder, range(12))):
        ours, theirs = SaliencyDataset(source, 32), SaliencyDataset(folder, 32)
        assert all(torch.equal(ours[i][0], theirs[i][0]) for i in range(12))


def test_subset() -> None:
    source = SyntheticSource(6, 32)
    subset = SubsetSource(source, [4, 1])
    assert len(subset) == 2
    assert subset.names == subset.contents == [source.names[4], source.names[1]]
    assert (subset[0].image == source[4].image).all()


def test_sampler_permutes_each_epoch_anew() -> None:
    sampler = EpochSampler(50, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] == orders[2] != orders[1]
    assert list(EpochSampler(50, seed=4)) != orders[0]
    assert list(EpochSampler(5, shuffle=False)) == [0, 1, 2, 3, 4]


def test_sampler_resumes_within_an_epoch() -> None:
    sampler = EpochSampler(20, seed=1)
    sampler.set_epoch(7)
    whole = list(sampler)
    sampler.set_epoch(7, start=13)
    assert list(sampler) == whole[13:]
    assert len(sampler) == 7
    sampler.set_epoch(7, start=20)
    assert list(sampler) == []
    with pytest.raises(ValueError, match=r"0 \.\. 20"):
        sampler.set_epoch(7, start=21)
