"""LMWP-Net can learn: it fits a few pictures closely, by the trainer and the loss of its recipe."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lmwp_models.data import SaliencyDataset, SyntheticSource
from lmwp_models.data.panels import Panel
from lmwp_models.registry import create_model
from lmwp_models.training.recipe import load_recipe, recipe_from_dict
from lmwp_models.training.sinks import StepRecord
from lmwp_models.training.trainer import Trainer, Validation

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


def trainer(folder: Path, epochs: int, batch_size: int = 8, **options: Any) -> Trainer:
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
                "batch_size": batch_size,
                "device": "cpu",
                "checkpoint_every": 1000,
            },
        }
    )
    torch.manual_seed(0)
    dataset = SaliencyDataset(SyntheticSource(PICTURES, SIDE, 0), SIDE, seed=0)
    return Trainer(recipe, create_model("lmwpnet"), dataset, folder, **options)


@pytest.mark.slow
def test_it_fits_32_pictures(tmp_path: Path) -> None:
    run = trainer(tmp_path, epochs=120)
    run.fit()
    dataset = SaliencyDataset(SyntheticSource(PICTURES, SIDE, 0), SIDE)
    assert intersection_over_union(run.model, dataset) > 0.85


def test_validation_reports_what_the_gates_prune(tmp_path: Path) -> None:
    reported: dict[str, float] = {}

    class Reader:
        def step(self, record: StepRecord) -> None: ...

        def validation(
            self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
        ) -> None:
            reported.update(metrics)

    def validate(model: torch.nn.Module) -> Validation:
        model(torch.zeros(1, 3, SIDE, SIDE))
        return Validation(0.5, {"score": 0.5})

    trainer(tmp_path, epochs=1, batch_size=32, validate=validate, sinks=[Reader()]).fit()
    stages = [f"stage{i}.{share}" for i in range(1, 6) for share in ("zeros", "singles")]
    assert set(reported) == {"score", *stages}
    assert all(0 <= reported[name] <= 1 for name in stages)


@pytest.mark.parametrize("name", ["lmwpnet.toml", "lmwpnet-quick.toml"])
def test_its_recipes(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model.name == "lmwpnet"
    assert recipe.train.loss == "deep_supervision"
    assert recipe.decay.mode != "off"
