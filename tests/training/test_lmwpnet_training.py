"""LMWP-Net can learn: it fits a few pictures closely, by the trainer and the loss of its recipe."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lmwp_models.data import SaliencyDataset, SyntheticSource
from lmwp_models.registry import create_model
from lmwp_models.training.recipe import load_recipe, recipe_from_dict
from lmwp_models.training.trainer import Trainer

PICTURES, SIDE = 32, 64


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On maps this small threads wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def intersection_over_union(model: torch.nn.Module, dataset: SaliencyDataset) -> float:
    """The mean over the pictures, at probability one half, without augmentation."""
    pairs = [dataset[i] for i in range(len(dataset))]
    images, masks = (torch.stack(kind) for kind in zip(*pairs, strict=True))
    with torch.no_grad():
        found, wanted = model.eval()(images) > 0, masks > 0.5
    common = (found & wanted).sum((1, 2, 3))
    return float((common / (found | wanted).sum((1, 2, 3))).mean())


def train(folder: Path, epochs: int) -> float:
    recipe = recipe_from_dict(
        {
            "model": {"name": "lmwpnet"},
            "data": {"image_size": SIDE},
            "optimizer": {"lr": 4e-3, "weight_decay": 0.0},
            "schedule": {"kind": "one_cycle"},
            "decay": {"weight": 1e-4},
            "train": {
                "loss": "deep_supervision",
                "epochs": epochs,
                "batch_size": 8,
                "device": "cpu",
                "checkpoint_every": 1000,
            },
        }
    )
    torch.manual_seed(0)
    source = SyntheticSource(PICTURES, SIDE, 0)
    model = create_model("lmwpnet")
    Trainer(recipe, model, SaliencyDataset(source, SIDE, seed=0), folder).fit()
    return intersection_over_union(model, SaliencyDataset(source, SIDE))


@pytest.mark.slow
def test_it_fits_32_pictures(tmp_path: Path) -> None:
    assert train(tmp_path, epochs=120) > 0.85


@pytest.mark.parametrize("name", ["lmwpnet.toml", "lmwpnet-quick.toml"])
def test_its_recipes(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.name == "lmwpnet"
    assert recipe.train.loss == "deep_supervision"
    assert recipe.decay.mode != "off"
