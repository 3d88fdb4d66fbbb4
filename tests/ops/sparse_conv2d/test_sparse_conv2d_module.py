"""SparseConv2d: made from a convolution, trained, stored."""

from typing import Any

import pytest
import torch
from torch import nn

from lmwp_ops import SparseConvWeight
from lmwp_ops.nn import SparseConv2d

CONVS: dict[str, tuple[nn.Conv2d, str]] = {
    "1x1": (nn.Conv2d(6, 8, 1), "auto"),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), "taps"),
    "strided": (nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), "taps"),
    "same": (nn.Conv2d(6, 8, 3, padding="same", dilation=2), "dense"),
    "valid": (nn.Conv2d(6, 8, 3, padding="valid"), "auto"),
}


def masked(conv: nn.Conv2d) -> tuple[torch.Tensor, nn.Conv2d]:
    """A mask, and the convolution with its weight masked in place."""
    mask = torch.rand(conv.weight.shape) < 0.4
    with torch.no_grad():
        conv.weight *= mask
    return mask, conv


@pytest.mark.parametrize("name", CONVS)
def test_is_the_masked_convolution(name: str) -> None:
    conv, format = CONVS[name]
    mask, conv = masked(conv)
    module = SparseConv2d.from_conv(conv, mask, format)
    x = torch.randn(2, 6, 13, 11)
    torch.testing.assert_close(module(x), conv(x), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(module(x), conv(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(module.weight.to_dense(), conv.weight)
    assert module.format in repr(module)
    back = module.eval().to_conv()
    assert not back.training
    torch.testing.assert_close(back(x), conv(x))
    assert back.weight is not conv.weight
    assert torch.equal(back.weight, conv.weight)


def test_affine_and_slope() -> None:
    conv, mask = nn.Conv2d(4, 6, 1), torch.rand(6, 4, 1, 1) < 0.5
    norm, prelu = nn.BatchNorm2d(6).eval(), nn.PReLU(6)
    weight = SparseConvWeight.from_dense(conv.weight * mask, mask)
    scale = torch.rsqrt(torch.ones(6) + norm.eps)
    module = SparseConv2d(weight, conv.bias, affine=(scale, torch.zeros(6)), slope=prelu.weight)
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        conv.weight *= mask
    torch.testing.assert_close(module(x), prelu(norm(conv(x))))
    names = {"values", "bias", "scale", "shift", "slope"}
    assert {name for name, _ in module.named_parameters()} == names
    with pytest.raises(ValueError, match="affine and slope: expected none"):
        module.to_conv()


def test_a_step_changes_what_is_kept_alone() -> None:
    mask, conv = masked(nn.Conv2d(6, 8, 1))
    module = SparseConv2d.from_conv(conv, mask)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x, target = torch.randn(2, 6, 5, 5), torch.randn(2, 8, 5, 5)
    losses = []
    for _ in range(5):
        loss = (module(x) - target).pow(2).mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert not module.weight.to_dense()[~mask].any()


def test_state_is_the_packed_weight() -> None:
    mask, conv = masked(nn.Conv2d(6, 8, 1))
    module, other = (SparseConv2d.from_conv(conv, mask, "unstructured") for _ in range(2))
    assert set(module.state_dict()) == {"values", "offsets", "columns", "bias"}
    with torch.no_grad():
        other.values.zero_()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.weight.to_dense(), module.weight.to_dense())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": 1, "padding_mode": "reflect"}, "padding_mode: expected zeros, got reflect"),
        ({"padding": "same", "kernel_size": 2}, "padding: expected an even one, got 'same'"),
    ],
)
def test_what_it_cannot_stand_for_is_refused(options: dict[str, Any], message: str) -> None:
    conv = nn.Conv2d(**{"in_channels": 4, "out_channels": 4, "kernel_size": 3, **options})
    with pytest.raises(ValueError, match=message):
        SparseConv2d.from_conv(conv, torch.ones_like(conv.weight))
