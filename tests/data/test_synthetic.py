"""The procedural set: seeded, varied, with a known share of tiny objects."""

from pathlib import Path

import numpy as np
import pytest

from lmwp_models.data import SyntheticSource, find_pairs, open_source, write_synthetic
from lmwp_models.data.synthetic import TINY_AREA, is_tiny
from lmwp_models.errors import UserError


@pytest.fixture(scope="module")
def samples() -> list:
    source = SyntheticSource(80, 96, seed=1)
    return [source[i] for i in range(80)]


def area(mask: np.ndarray) -> float:
    return float((mask > 128).mean())


def test_shapes(samples: list) -> None:
    assert all(s.image.shape == (96, 96, 3) and s.image.dtype == np.uint8 for s in samples)
    assert all(s.mask.shape == (96, 96) and s.mask.dtype == np.uint8 for s in samples)
    wide = SyntheticSource(1, (32, 150))[0]
    assert wide.image.shape == (32, 150, 3)
    assert wide.image.flags.c_contiguous


def test_every_fourth_is_tiny_and_none_is_empty(samples: list) -> None:
    tiny = [area(s.mask) for i, s in enumerate(samples) if is_tiny(i)]
    others = [area(s.mask) for i, s in enumerate(samples) if not is_tiny(i)]
    assert len(tiny) == 20
    assert 0 < min(tiny) <= max(tiny) < TINY_AREA
    assert min(others) > 0.01
    assert 0.04 < np.median(others) < max(others) < 0.6


@pytest.mark.parametrize("size", [32, 64, (40, 300)])
def test_tiny_at_any_size(size) -> None:
    source = SyntheticSource(40, size)
    areas = [area(source[i].mask) for i in range(3, 40, 4)]
    assert 0 < min(areas) <= max(areas) < TINY_AREA


def test_a_picture_depends_on_seed_and_index_alone(samples: list) -> None:
    again = SyntheticSource(7, 96, seed=1)
    for i in (6, 0, 3):
        assert np.array_equal(again[i].image, samples[i].image)
        assert again[i].name == samples[i].name
    other = SyntheticSource(7, 96, seed=2)
    assert not np.array_equal(other[0].image, samples[0].image)
    assert set(other.names).isdisjoint(again.names)


def test_indices() -> None:
    source = SyntheticSource(3, 32)
    assert np.array_equal(source[-1].image, source[2].image)
    with pytest.raises(IndexError):
        source[3]


def test_objects_stand_out_and_masks_fit(samples: list) -> None:
    """The border of the mask is where the picture changes most."""
    ratios = []
    for s in samples:
        inside = s.mask > 128
        edge = inside[1:] != inside[:-1]
        steps = np.abs(np.diff(s.image.astype(int), axis=0)).sum(2)
        ratios.append(steps[edge].mean() / steps[~edge].mean())
    assert np.median(ratios) > 4


def test_it_is_not_solved_by_a_threshold(samples: list) -> None:
    """Neither brightness nor distance from the mean colour tells the objects alone."""

    def best_f(score: np.ndarray, truth: np.ndarray) -> float:
        found = [
            2 * (truth & (score > t)).sum() / max(1, truth.sum() + (score > t).sum())
            for t in np.quantile(score, np.linspace(0.3, 0.99, 30))
        ]
        return max(found)

    scores = []
    for s in samples:
        distance = np.linalg.norm(s.image - s.image.mean((0, 1)), axis=2)
        scores.append(best_f(distance, s.mask > 128))
    assert 0.4 < np.mean(scores) < 0.9


def test_masks_have_soft_edges_and_full_insides(samples: list) -> None:
    levels = np.concatenate([s.mask.ravel() for s in samples])
    between = (levels > 0) & (levels < 255)
    assert 0 < between.mean() < 0.05
    assert (levels == 255).any()


def test_pictures_vary(samples: list) -> None:
    means = np.array([s.image.mean((0, 1)) for s in samples])
    assert means.std(0).min() > 30
    assert len({s.image.tobytes() for s in samples}) == len(samples)


@pytest.mark.parametrize("wrong", [(0, 64, 0), (1, 31, 0), (1, 64, -1), (1, (64, 8), 0)])
def test_wrong_arguments(wrong: tuple) -> None:
    with pytest.raises(ValueError, match="expected count"):
        SyntheticSource(*wrong)


def test_written_files_are_a_data_set(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path / "new" / "set", 5, (40, 48), seed=9)
    written, source = open_source(root, cache=False), SyntheticSource(5, (40, 48), seed=9)
    assert written.names == source.names
    for i in range(5):
        assert np.array_equal(written[i].mask, source[i].mask)
        difference = np.abs(written[i].image.astype(int) - source[i].image)
        assert difference.mean() < 6
    assert {pair.image.suffix for pair in find_pairs(root)} == {".jpg"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    root = write_synthetic(tmp_path, 2, 32)
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    with pytest.raises(UserError, match="exists"):
        write_synthetic(tmp_path, 3, 64, seed=0)
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
