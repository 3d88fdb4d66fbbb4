"""lmwp_ops.dilated_bank against loops over taps, and its argument checks."""

import pytest
import torch

import lmwp_ops


def by_taps(x, weight, rate):
    """A dilated 3 x 3 convolution as nine shifted products."""
    n, _, h, w = x.shape
    y = torch.zeros(n, weight.shape[0], h, w, dtype=x.dtype)
    for row in range(h):
        for column in range(w):
            for u in range(3):
                for v in range(3):
                    r, s = row + rate * (u - 1), column + rate * (v - 1)
                    if 0 <= r < h and 0 <= s < w:
                        y[:, :, row, column] += x[:, :, r, s] @ weight[:, :, u, v].T
    return y


def make(dtype=torch.float64, batch=2):
    xs = [torch.randn(batch, 3, 7, 9, dtype=dtype), torch.randn(batch, 2, 5, 4, dtype=dtype)]
    weights = [
        [torch.randn(c, 3, 3, 3, dtype=dtype) if c else None for c in (2, 0, 1)],
        [torch.randn(c, 2, 3, 3, dtype=dtype) if c else None for c in (0, 1, 4)],
    ]
    return xs, weights, (1, 2, 8)


def test_equals_shifted_products_in_order_of_dilations():
    xs, weights, rates = make()
    ys = lmwp_ops.dilated_bank(xs, weights, rates)
    assert len(ys) == 2
    for y, x, row in zip(ys, xs, weights, strict=True):
        parts = [by_taps(x, w, r) for w, r in zip(row, rates, strict=True) if w is not None]
        torch.testing.assert_close(y, torch.cat(parts, dim=1))


def test_scale_without_weights_is_absent():
    xs, weights, rates = make()
    (y,) = lmwp_ops.dilated_bank(xs, [[None] * 3, weights[1]], rates)
    torch.testing.assert_close(y, lmwp_ops.dilated_bank(xs, weights, rates)[1])


def test_epilogue():
    xs, weights, rates = make()
    plain = lmwp_ops.dilated_bank(xs, weights, rates)
    affine = [(torch.randn(c).double(), torch.randn(c).double()) for c in (3, 5)]
    slope = [torch.randn(3).double(), torch.randn(5).double()]
    got = lmwp_ops.dilated_bank(xs, weights, rates, affine=affine, slope=slope)
    for y, (scale, shift), a, result in zip(plain, affine, slope, got, strict=True):
        u = y * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        torch.testing.assert_close(result, torch.where(u > 0, u, u * a.view(1, -1, 1, 1)))


def test_gradients():
    xs, weights, rates = make(batch=1)
    xs = [x[:, :, :3, :2].clone() for x in xs]
    present = [w for row in weights for w in row if w is not None]
    leaves = [t.requires_grad_() for t in (*xs, *present)]

    def run(a, b, *ws):
        stack = list(ws)
        rows = [[None if w is None else stack.pop(0) for w in row] for row in weights]
        return tuple(lmwp_ops.dilated_bank([a, b], rows, rates))

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_is_close_to_float64(dtype):
    xs, weights, rates = make()
    exact = lmwp_ops.dilated_bank(xs, weights, rates)
    low = [[None if w is None else w.to(dtype) for w in row] for row in weights]
    ys = lmwp_ops.dilated_bank([x.to(dtype) for x in xs], low, rates)
    for y, want in zip(ys, exact, strict=True):
        assert y.dtype == dtype
        assert (y.double() - want).abs().max() < 8 * torch.finfo(dtype).eps * want.abs().max()


def test_empty_batch():
    xs, weights, rates = make(batch=0)
    ys = lmwp_ops.dilated_bank(xs, weights, rates)
    assert [tuple(y.shape) for y in ys] == [(0, 3, 7, 9), (0, 5, 5, 4)]


X, W = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 3, 3)
BAD = [
    ([], [], [1], {}, r"xs: expected at least one tensor"),
    ([X], [[W]], [], {}, r"dilations: expected one or more positive ints, got \[\]"),
    ([X], [[W]], [0], {}, r"dilations: expected one or more positive ints, got \[0\]"),
    ([X], [[W], [W]], [1], {}, r"weights: expected 1 lists, one per scale, got 2"),
    ([X], [[W]], [1, 2], {}, r"weights\[0\]: expected 2 entries, one per dilation, got 1"),
    ([X], [[W[:, :1]]], [1], {}, r"weights\[0\]\[0\]: expected shape \[out, 2, 3, 3\].* got \[1,"),
    ([X], [[W[:0]]], [1], {}, r"weights\[0\]\[0\]: expected .* out > 0, or None, got \[0, 2"),
    ([X], [[W.half()]], [1], {}, r"weights\[0\]\[0\]: expected torch.float32 like xs"),
    ([X], [[None]], [1], {}, r"weights: expected at least one tensor, got None everywhere"),
    ([X], [[W]], [1], {"slope": [X[0, :, 0, 0]]}, r"slope\[0\]: expected shape \[1\], got \[2\]"),
]  # fmt: skip


@pytest.mark.parametrize(("xs", "weights", "rates", "options", "message"), BAD)
def test_bad_arguments_are_named(xs, weights, rates, options, message):
    with pytest.raises(ValueError, match=r"^dilated_bank: " + message):
        lmwp_ops.dilated_bank(xs, weights, rates, **options)


class TestModule:
    def test_uses_scaled_weights_and_skips_absent_ones(self):
        bank = lmwp_ops.nn.DilatedBank([3, 2], [[2, 0], [1, 3]], (1, 4), weight_scale=100)
        assert {k: tuple(v.shape) for k, v in bank.state_dict().items()} == {
            "convs.0.0.weight": (2, 3, 3, 3),
            "convs.1.0.weight": (1, 2, 3, 3),
            "convs.1.1.weight": (3, 2, 3, 3),
        }
        xs = [torch.randn(1, 3, 6, 6), torch.randn(1, 2, 3, 3)]
        state = bank.state_dict()
        weights = [
            [100 * state["convs.0.0.weight"], None],
            [100 * state["convs.1.0.weight"], 100 * state["convs.1.1.weight"]],
        ]
        expected = lmwp_ops.dilated_bank(xs, weights, (1, 4))
        for y, want in zip(bank(xs), expected, strict=True):
            torch.testing.assert_close(y, want)
