"""A network and a recipe small enough to train in a test."""

import torch

from lmwp_models.data import AugmentConfig, SaliencyDataset, SyntheticSource
from lmwp_models.registry import create_model
from lmwp_models.training.recipe import recipe_from_dict
from lmwp_models.training.trainer import Trainer

# CSNet of one narrow block a stage.
SMALL = {
    "stages": [1, 1, 1, 1],
    "blocks": [[4, 4], [4, 4], [8], [8], [8]],
    "head": {"fuse": [4, 4, 4], "ms": [[1, 1, 1, 1, 1]] * 3, "fuse1x1": 8},
}
RECIPE = {
    "data": {"image_size": 32},
    "optimizer": {"lr": 2e-3, "weight_decay": 0.0},
    "schedule": {"kind": "one_cycle"},
    "decay": {"weight": 0.1},
    "train": {"epochs": 2, "batch_size": 4, "seed": 3, "device": "cpu", "checkpoint_every": 1000},
}


class Recorder:
    """Keeps what a sink receives."""

    def __init__(self):
        self.steps, self.validations = [], []

    def step(self, record):
        self.steps.append(record)

    def validation(self, step, epochs, metrics, panels):
        self.validations.append((step, epochs, metrics))

    def close(self):
        pass


def make_trainer(
    folder, *, pictures=12, sinks=(), validate=None, dtype=torch.float32, extra=None, **sections
):
    """A trainer of the small recipe, with keys of its sections replaced.

    `extra` is a parameter that the network has and does not use.
    """
    tree = {key: {**RECIPE.get(key, {}), **sections.get(key, {})} for key in {*RECIPE, *sections}}
    recipe = recipe_from_dict(tree)
    torch.manual_seed(recipe.train.seed)
    dataset = SaliencyDataset(
        SyntheticSource(pictures, 48, 0), recipe.data.image_size, AugmentConfig(crop=5), seed=3
    )
    model = create_model("csnet-x1", **SMALL).to(dtype)
    model.register_forward_pre_hook(lambda module, args: (args[0].to(dtype),))
    model.register_parameter("extra", extra)
    return Trainer(recipe, model, dataset, folder, sinks=sinks, validate=validate)


def weights(trainer):
    """A copy of the weights as they are."""
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def assert_same(first, second):
    """Bit for bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
