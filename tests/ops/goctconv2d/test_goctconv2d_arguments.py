"""What lmwp_ops.goctconv2d refuses, and the module over it."""

import pytest
import torch

import lmwp_ops


def _x(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


A, B, W = _x(1, 2, 4, 4), _x(1, 3, 2, 2), _x(4, 5, 1, 1)
BAD = [
    ([A, B], W, [2, 3.0], [2, 2], {}, r"in_channels: expected one non-negative int per branch"),
    ([A, B], W, [2, 3], [4, -1], {}, r"out_channels: expected one non-negative int per branch"),
    ([A, B], W, [2, 3], [0, 0], {}, r"out_channels: expected at least one branch with channels"),
    ([A], W, [2, 3], [2, 2], {}, r"xs: expected 2 tensors, .* got 1 tensors"),
    ([A, B[0]], W, [2, 3], [2, 2], {}, r"xs\[1\]: expected a 4-D tensor .* got \[3, 2, 2\]"),
    ([A, A], W, [2, 3], [2, 2], {}, r"xs\[1\]: expected 3 channels, got 2"),
    ([A, B.int()], W, [2, 3], [2, 2], {}, r"xs\[1\]: expected a floating-point dtype, got"),
    ([A, B.double()], W, [2, 3], [2, 2], {}, r"xs\[1\]: expected torch.float32 on cpu like xs"),
    ([A, B.to("meta")], W, [2, 3], [2, 2], {}, r"xs\[1\]: expected .* on cpu .* on meta"),
    ([A, B.repeat(2, 1, 1, 1)], W, [2, 3], [2, 2], {}, r"xs\[1\]: expected batch size 1 .* got 2"),
    ([A, B], W, [2, 3], [2, 3], {}, r"weight: expected shape \[5, 5, k, k\] with k 1 or 3, got"),
    ([A, B], _x(4, 5, 5, 5), [2, 3], [2, 2], {}, r"weight: expected shape \[4, 5, k, k\]"),
    ([A, B], W.double(), [2, 3], [2, 2], {}, r"weight: expected torch.float32 like xs, got"),
    ([A, B], W.to("meta"), [2, 3], [2, 2], {}, r"weight: expected device cpu like xs, got meta"),
    ([A, B], W, [2, 3], [2, 2], {"down": "avg"}, r"down: expected 'max' or 'bilinear', got 'avg'"),
    ([A, B], W, [2, 3], [2, 2], {"slope": [_x(2)]}, r"slope: expected 2 entries, .* got 1"),
    ([A, B], W, [2, 3], [2, 2], {"slope": [_x(2), _x(1)]}, r"slope\[1\]: expected shape \[2\]"),
    ([A, B], W, [2, 3], [2, 2], {"affine": [(_x(2),)] * 2}, r"affine\[0\]: expected a pair"),
    ([A, B], W, [2, 3], [2, 2], {"affine": [(_x(2), _x(3))] * 2}, r"affine\[0\] shift: expected"),
    ([A, B], W, [2, 3], [2, 0, 2], {"cross_scale": False}, r"out_channels: expected 0 for branch"),
    ([A, _x(1, 3, 3, 2)], W, [2, 3], [2, 2], {}, r"xs, branch 1: expected 2 x 2, .* got 3 x 2"),
    ([_x(1, 2, 1, 4)], _x(1, 2, 1, 1), [2], [1], {"entry_pool": True}, r"at least 2 x 2 pixels"),
    ([_x(1, 2, 1, 4)], _x(1, 2, 1, 1), [2], [0, 1], {}, r"xs, branch 0: expected at least 2 pix"),
]  # fmt: skip


@pytest.mark.parametrize(("xs", "weight", "ins", "outs", "options", "message"), BAD)
def test_bad_arguments_are_named(xs, weight, ins, outs, options, message):
    with pytest.raises(ValueError, match=r"^goctconv2d: .*" + message):
        lmwp_ops.goctconv2d(xs, weight, ins, outs, **options)


class TestModule:
    def test_computes_the_op(self):
        layer = lmwp_ops.nn.GOctConv2d([2, 1], [1, 2], 3, entry_pool=True)
        xs = [torch.randn(1, 2, 8, 8), torch.randn(1, 1, 4, 4)]
        expected = lmwp_ops.goctconv2d(xs, layer.weight, [2, 1], [1, 2], entry_pool=True)
        for y, want in zip(layer(xs), expected, strict=True):
            assert torch.equal(y, want)

    def test_state_and_text(self):
        layer = lmwp_ops.nn.GOctConv2d([2, 1], [3], cross_scale=True, down="bilinear")
        assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
            "weight": (3, 3, 1, 1)
        }
        assert repr(layer) == "GOctConv2d([2, 1], [3], 1, down='bilinear')"

    def test_initial_bound_counts_all_input_branches(self):
        weight = lmwp_ops.nn.GOctConv2d([40, 60], [50, 50], 3).weight
        bound = (100 * 9) ** -0.5
        assert 0.98 * bound < weight.abs().max() <= bound
