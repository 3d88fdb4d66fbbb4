"""LMWP-Net against its description, written out in plain torch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmwp_models.lmwpnet_config import LMWPNetConfig

from .lmwpnet_cases import small


class Straight:
    """The network from its parameters alone, in plain torch, as its description reads."""

    def __init__(self, state: dict[str, Tensor], training: bool, config: LMWPNetConfig) -> None:
        self.state, self.training, self.config = state, training, config

    def get(self, name: str) -> Tensor:
        return self.state[name]

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var = self.get(f"{name}.running_mean"), self.get(f"{name}.running_var")
        weight, bias = self.get(f"{name}.weight"), self.get(f"{name}.bias")
        return F.batch_norm(x, mean.clone(), var.clone(), weight, bias, self.training)

    def cb(self, name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.get(f"{name}.conv.weight")
        groups = x.shape[1] // weight.shape[1]
        padding = dilation * (weight.shape[-1] // 2)
        y = F.conv2d(x, weight, None, stride, padding, dilation, groups)
        return self.norm(f"{name}.norm", y)

    def cbr(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.prelu(self.cb(name, x, stride), self.get(f"{name}.prelu.weight"))

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.get(f"{name}.weight"), self.state.get(f"{name}.bias"))

    def conv(self, name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def mwpm(self, name: str, x: Tensor) -> Tensor:
        u = self.cbr(f"{name}.expand", x)
        count = len(self.config.branches)
        v = self.linear(f"{name}.gate.fc1", u.mean((2, 3)))
        v = self.linear(f"{name}.gate.fc2", F.prelu(v, self.get(f"{name}.gate.prelu.weight")))
        a = v.view(len(u), count, -1).softmax(1)
        tau = self.get(f"{name}.gate.threshold").sigmoid().clamp(max=0.99) / count
        w = F.relu(a - tau) / F.relu(a - tau).sum(1, keepdim=True)
        total = 0
        for k, (octave, dilation) in enumerate(self.config.branches):
            pooled = F.avg_pool2d(u, 2**octave, ceil_mode=True)
            kernel = self.get(f"{name}.mix.convs.{k}.weight")
            y = F.conv2d(pooled, kernel, None, 1, dilation, dilation, len(kernel))
            y = up(self.norm(f"{name}.mix.norms.{k}", y), u)
            total = total + w[:, k, :, None, None] * y
        y = x + self.cb(f"{name}.project", total)
        return F.prelu(y, self.get(f"{name}.prelu.weight"))

    def stage(self, s: int, x: Tensor) -> Tensor:
        name = f"stage{s + 1}"
        if s == 0:
            x = self.cbr(f"{name}.0", x, stride=2)
        else:
            x = self.cbr(f"{name}.0.1", self.cb(f"{name}.0.0", x, stride=2))
        for i in range(self.config.blocks[s]):
            x = self.mwpm(f"{name}.{i + 1}", x)
        return x

    def context(self, x: Tensor) -> Tensor:
        parts = [x]
        for i in range(3):
            pooled = F.avg_pool2d(x, 2 ** (i + 1), ceil_mode=True)
            parts.append(up(self.cbr(f"context.pooled.{i}", pooled), x))
        image = self.cbr("context.image", F.adaptive_avg_pool2d(x, 1))
        parts.append(image.expand(-1, -1, *x.shape[2:]))
        return self.cbr("context.fuse", torch.cat(parts, 1))

    def mafm(self, name: str, e: Tensor, d: Tensor, s: Tensor) -> Tensor:
        def mlp(v: Tensor) -> Tensor:
            v = self.linear(f"{name}.attention.reduce", v.flatten(1))
            return self.linear(f"{name}.attention.expand", F.relu(v))

        m = mlp(F.adaptive_avg_pool2d(e, 1)) + mlp(F.adaptive_max_pool2d(e, 1))
        e1 = e * torch.sigmoid(m)[:, :, None, None]
        q = torch.cat([e1.mean(1, keepdim=True), e1.amax(1, keepdim=True)], 1)
        spatial = [self.get(f"{name}.attention.spatial.{i}.weight") for i in range(3)]
        assert [kernel.shape[-1] for kernel in spatial] == [3, 5, 7]
        e2 = e1 * torch.sigmoid(sum(F.conv2d(q, k, padding=k.shape[-1] // 2) for k in spatial))
        g = torch.sigmoid(self.conv(f"{name}.channel_guide", F.adaptive_avg_pool2d(s, 1)))
        p = up(torch.sigmoid(self.conv(f"{name}.spatial_guide", d)), e)
        f = self.cb(f"{name}.encoder", e2) * (1 + p) + up(self.cb(f"{name}.decoder", d), e) * g
        f = f + self.cb(f"{name}.near", f) + self.cb(f"{name}.far", f, dilation=2)
        return self.cbr(f"{name}.fuse", f)

    def __call__(self, x: Tensor) -> list[Tensor]:
        features, y = [], x
        for s in range(5):
            y = self.stage(s, y)
            features.append(y)
        context = self.context(y)
        decoded = [context]
        for s in (3, 2, 1, 0):
            name = f"decoder.{2 ** (s + 1)}"
            decoded.append(self.mafm(name, features[s], decoded[-1], context))
        heads = [f"heads.{stride}" for stride in (2, 4, 8, 16, 32)]
        return [up(self.conv(head, d), x) for head, d in zip(heads, reversed(decoded), strict=True)]


def up(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(32, 32), (47, 61), (96, 33)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_equals_its_description_in_plain_torch(size: tuple[int, int], training: bool) -> None:
    model = small().double().train(training)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    straight = Straight(state, training, model.config)
    x = torch.randn(3, 3, *size, dtype=torch.float64)
    expected = straight(x)
    got = model(x)
    if not training:
        got, expected = [got], expected[:1]
    assert all(y.shape == (3, 1, *size) for y in got)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-8)


def test_gradients_are_those_of_plain_torch() -> None:
    model = small().double()
    names = dict(model.named_parameters())
    state = {**model.state_dict(), **names}
    x = torch.randn(4, 3, 40, 52, dtype=torch.float64)
    loss = sum(y.square().mean() for y in Straight(state, True, model.config)(x))
    expected = torch.autograd.grad(loss, list(names.values()))
    got = torch.autograd.grad(sum(y.square().mean() for y in model(x)), list(names.values()))
    for name, one, other in zip(names, got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9, msg=name)


def test_running_statistics_are_those_of_batch_norms() -> None:
    model = small()
    twin = copy.deepcopy(model)
    for module in twin.modules():  # a norm that is watched is called by itself
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: None)
    x = torch.randn(4, 3, 48, 40)
    torch.testing.assert_close(model(x), twin(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-4, atol=1e-5)
