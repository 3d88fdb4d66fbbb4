import numpy as np
import pytest
import torch
from torch import nn


class Brightness(nn.Module):
    """A network whose logit is a multiple of the normalised red level; remembers its inputs."""

    def __init__(self, size_multiple=16, gain=1.0, bias=0.0):
        super().__init__()
        self.size_multiple = size_multiple
        self.gain = nn.Parameter(torch.tensor(gain))
        self.bias = bias
        self.inputs = []

    def forward(self, x):
        self.inputs.append(x)
        return self.gain * x[:, :1] + self.bias


@pytest.fixture
def make_network():
    return Brightness


@pytest.fixture
def photograph():
    """RGB images of any size with smooth and sharp parts."""

    def make(height, width, seed=0):
        rng = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        smooth = 120 + 80 * np.sin(rows / 9 + seed) * np.cos(columns / 13)
        image = smooth[:, :, None] + rng.integers(-40, 40, (height, width, 3))
        return np.clip(image, 0, 255).astype(np.uint8)

    return make
