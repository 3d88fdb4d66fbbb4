"""Two oracles for the networks: weights from a formula, and CSNet written out straight."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors here are tiny: on a busy machine threads wait for each other longer than work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def fill_by_formula() -> Callable[[nn.Module], nn.Module]:
    """Fills a network with weights from an integer hash of (position in the state dict, element).

    Independent of any random generator; the same formula made the golden outputs.
    """
    return _fill


@pytest.fixture(scope="session")
def straight_line() -> Callable[..., Tensor]:
    """CSNet in eval mode from its state dict alone; shares no code with the package."""
    return _csnet


@pytest.fixture(scope="session")
def smooth_image() -> Callable[..., Tensor]:
    """An image [N, 3, H, W] of waves, in float64."""

    def make(*size: int, batch: int = 1) -> Tensor:
        n, c, y, x = torch.meshgrid(
            *(torch.arange(s, dtype=torch.float64) for s in (batch, 3, *size)), indexing="ij"
        )
        return torch.sin(0.13 * y + 0.7 * c + n) + torch.cos(0.09 * x * (c + 1)) * torch.sin(
            0.011 * x * y + n
        )

    return make


def _uniform(position: int, count: int) -> np.ndarray:
    mask = 0xFFFFFFFF
    t = (np.arange(1, count + 1, dtype=np.uint64) * 2654435761) & mask
    t = (t + (position * 40503 * 65537 & mask)) & mask
    t = ((t ^ (t >> 15)) * 2246822519) & mask
    t = ((t ^ (t >> 13)) * 3266489917) & mask
    return (t ^ (t >> 16)) / 2.0**32


def _fill(model: nn.Module) -> nn.Module:
    scaled = ("conv3x3_", ".msconv.")
    single = [m for m in model.modules() if type(m).__name__ == "StandardConv"]
    state = model.state_dict(keep_vars=True)
    prelus = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.PReLU)
    }
    with torch.no_grad():
        for position, (key, tensor) in enumerate(state.items()):
            u = _uniform(position, tensor.numel())
            if key.endswith("num_batches_tracked"):
                u = 0 * u
            elif tensor.dim() == 4:
                u = (2 * u - 1) * np.sqrt(3 / np.prod(tensor.shape[1:]))
                if any(part in key for part in scaled) or any(m.weight is tensor for m in single):
                    u = u * 0.01
            elif key in prelus:
                u = 0.05 + 0.4 * u
            elif key.endswith(("running_mean", "bias")):
                u = (u - 0.5) * 0.2
            elif key.endswith("running_var"):
                u = 0.40 + 0.25 * u
            else:
                u = 0.5 + u
            tensor.copy_(torch.from_numpy(u).reshape(tensor.shape))
    return model


def _csnet(state: dict[str, Tensor], image: Tensor, single: bool = False) -> Tensor:
    features = {0: image}
    ends = []
    for stage in range(5):
        block = 0
        while f"stage{stage}.{block}.conv1x1.conv.weight" in state:
            entry = stage >= 2 and block == 0
            features = _il_block(state, f"stage{stage}.{block}", features, entry, single)
            block += 1
        ends.append(features.get(0))
    y = _head(state, ends[2:]) if "oct_fuse.fuse.conv.weight" in state else ends[4]
    logits = F.conv2d(y, state["cls_layer.weight"], state["cls_layer.bias"])
    return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


def _il_block(state, name, features, entry, single):
    weight = state[f"{name}.conv1x1.conv.weight"]
    if single:
        stride, padding = 1 + entry, weight.shape[-1] // 2
        features = {0: F.conv2d(features[0], 100 * weight, stride=stride, padding=padding)}
    else:
        if entry:
            features = {b: F.avg_pool2d(x, 2) for b, x in features.items()}
        features = _octave(weight, features, _widths(state, f"{name}.conv1x1"))
    features = _norm_prelu(state, f"{name}.conv1x1", features)
    for layer in (f"{name}.conv3x3_1", f"{name}.conv3x3_2"):
        for b, x in features.items():
            kernel = 100 * state[f"{layer}.convs.{b}.weight"]
            features[b] = F.conv2d(x, kernel, padding=1, groups=len(kernel))
        features = _norm_prelu(state, layer, features)
    return features


def _head(state, inputs):
    name = "oct_fuse.fuse"
    features = dict(enumerate(inputs))
    features = _octave(state[f"{name}.conv.weight"], features, _widths(state, name))
    features = _norm_prelu(state, name, features)
    banks = {}
    for b, x in features.items():
        name = f"oct_fuse.ms.convs.{b}"
        parts = [
            F.conv2d(x, 100 * state[f"{name}.msconv.{d}.weight"], padding=2**d, dilation=2**d)
            for d in range(5)
            if f"{name}.msconv.{d}.weight" in state
        ]
        if parts:
            bank = _norm(state, f"{name}.bn", torch.cat(parts, dim=1))
            banks[b] = F.prelu(bank, state[f"{name}.prelu.weight"])
    name = "oct_fuse.fuse1x1"
    features = _octave(state[f"{name}.conv.weight"], banks, _widths(state, name))
    return _norm_prelu(state, name, features)[0]


def _octave(weight, features, widths):
    rows = 0
    ys = {}
    for j, width in widths.items():
        total = 0
        first = 0
        for i, x in features.items():
            kernel = weight[rows : rows + width, first : first + x.shape[1]]
            first += x.shape[1]
            pooled = F.max_pool2d(x, 2 ** (j - i)) if i < j else x
            term = F.conv2d(pooled, kernel, padding=kernel.shape[-1] // 2)
            if i > j:
                scale = 2 ** (i - j)
                term = F.interpolate(term, scale_factor=scale, mode="bilinear")
            total = total + term
        rows += width
        ys[j] = total
    return ys


def _widths(state, name):
    keys = {b: f"{name}.bns.{b}.weight" for b in range(3)}
    return {b: len(state[key]) for b, key in keys.items() if key in state}


def _norm_prelu(state, name, features):
    return {
        b: F.prelu(_norm(state, f"{name}.bns.{b}", x), state[f"{name}.prelus.{b}.weight"])
        for b, x in features.items()
    }


def _norm(state, name, x):
    mean, var, gamma, beta = (
        state[f"{name}.{key}"].view(1, -1, 1, 1)
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * gamma + beta
