"""The networks of the benchmark: the project's own, and its rivals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import lmwp_ops
from lmwp_bench.rivals import RIVALS
from lmwp_models.data import SyntheticSource
from lmwp_models.data.transforms import to_input
from lmwp_models.errors import UserError
from lmwp_models.registry import create_model, list_models, model_info

_CALIBRATION_BATCHES = 2
_CALIBRATION_IMAGES = 4
_SLOPE = 0.9


@dataclass(frozen=True)
class BenchNetwork:
    """A network as it is benchmarked; `ours` if it is built on lmwp_ops."""

    name: str
    build: Callable[[], nn.Module]
    input_size: tuple[int, int]
    ours: bool


def known_networks() -> list[str]:
    """Every name that `bench_network` takes."""
    return [*list_models(), *RIVALS]


def bench_network(name: str) -> BenchNetwork:
    """Raises `UserError` for an unknown name."""
    if name in RIVALS:
        rival = RIVALS[name]
        return BenchNetwork(name, rival.build, rival.input_size, ours=False)
    if name.lower() not in {alias for m in list_models() for alias in (m, *model_info(m).aliases)}:
        raise UserError(f"no network is called {name!r}; known are {', '.join(known_networks())}")
    info = model_info(name)
    return BenchNetwork(info.name, lambda: create_model(info.name), info.input_size, ours=True)


def make_network(network: BenchNetwork, size: tuple[int, int]) -> nn.Module:
    """The network with seeded weights and batch norms that have seen pictures, for inference.

    Without them random weights give logits beyond any scale, and what follows a dead or an
    overflowing channel says nothing of a trained network.
    """
    torch.manual_seed(0)
    model = network.build()
    make_comparable(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a plain mean over the batches
    model.train()
    with torch.no_grad(), lmwp_ops.decomposed():
        for i in range(_CALIBRATION_BATCHES):
            model(make_images(_CALIBRATION_IMAGES, size, seed=i + 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def make_comparable(model: nn.Module) -> None:
    """Have dropout drop nothing, and bring the slopes of all PReLUs near one.

    Through the kinks of a freshly initialised network a rounding error of 1e-7 grows to 1e-2 of
    the gradients, and one of half precision to a tenth of the logits, whoever computes them. With
    these slopes it stays small, and what is wrong shows.
    """
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            nn.init.constant_(module.weight, _SLOPE)
        elif isinstance(module, nn.Dropout2d):
            module.p = 0.0


def make_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Synthetic pictures as networks take them, float32 [count, 3, H, W]."""
    source = SyntheticSource(count, max(size), seed)
    return torch.stack([to_input(source[i].image, size) for i in range(count)])
