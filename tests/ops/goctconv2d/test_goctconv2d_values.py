"""lmwp_ops.goctconv2d against loops over pixels in float64, and identities it must keep."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import lmwp_ops

MAX, BILINEAR = "max", "bilinear"


def pool(x, window, reduce):
    n, c, h, w = x.shape
    y = np.zeros((n, c, h // window, w // window))
    for row in range(h // window):
        for column in range(w // window):
            top, left = row * window, column * window
            y[:, :, row, column] = reduce(
                x[:, :, top : top + window, left : left + window], axis=(2, 3)
            )
    return y


def convolve(x, weight):
    """Stride 1, padded so that the size stays."""
    n, _, h, w = x.shape
    out, _, k, _ = weight.shape
    y = np.zeros((n, out, h, w))
    for row in range(h):
        for column in range(w):
            for u in range(k):
                for v in range(k):
                    r = row + u - k // 2
                    s = column + v - k // 2
                    if 0 <= r < h and 0 <= s < w:
                        y[:, :, row, column] += x[:, :, r, s] @ weight[:, :, u, v].T
    return y


def bilinear(x, size):
    """Bilinear, half-pixel centres (align_corners=False), clamped at the borders."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            r = max((row + 0.5) * h / size[0] - 0.5, 0)
            s = max((column + 0.5) * w / size[1] - 0.5, 0)
            r0, s0 = int(r), int(s)
            r1, s1 = min(r0 + 1, h - 1), min(s0 + 1, w - 1)
            fr, fs = r - r0, s - s0
            top = (1 - fs) * x[:, :, r0, s0] + fs * x[:, :, r0, s1]
            bottom = (1 - fs) * x[:, :, r1, s0] + fs * x[:, :, r1, s1]
            y[:, :, row, column] = (1 - fr) * top + fr * bottom
    return y


def pixel_by_pixel(xs, weight, ins, outs, *, sizes, entry_pool=False, cross_scale=True, down="max"):
    """`sizes` are those of the output branches, which this oracle is told."""
    features = iter(xs)
    inputs = {i: next(features) for i, width in enumerate(ins) if width}
    if entry_pool:
        inputs = {i: pool(x, 2, np.mean) for i, x in inputs.items()}
    ys = []
    for j, width in enumerate(outs):
        if not width:
            continue
        y = 0
        for i, x in inputs.items():
            rows = slice(sum(outs[:j]), sum(outs[: j + 1]))
            columns = slice(sum(ins[:i]), sum(ins[: i + 1]))
            block = weight[rows, columns]
            if i == j:
                y = y + convolve(x, block)
            elif cross_scale and i < j:
                x = pool(x, 2 ** (j - i), np.max) if down == "max" else bilinear(x, sizes[j])
                y = y + convolve(x, block)
            elif cross_scale:
                y = y + bilinear(convolve(x, block), sizes[j])
        ys.append(y)
    return ys


def make(ins, outs, sizes, k, dtype=torch.float64, batch=2):
    """Random present inputs of the given sizes, and a weight."""
    xs = [
        torch.randn(batch, c, *size, dtype=dtype) for c, size in zip(ins, sizes, strict=True) if c
    ]
    return xs, torch.randn(sum(outs), sum(ins), k, k, dtype=dtype)


# in channels, out channels, k, input sizes, output sizes, options
CASES = {
    "two to two": ([2, 3], [3, 2], 1, [(6, 8), (3, 4)], [(6, 8), (3, 4)], {}),
    "two to two 3x3": ([2, 3], [3, 2], 3, [(6, 8), (3, 4)], [(6, 8), (3, 4)], {}),
    "odd sizes round down": ([1, 2], [2, 1], 3, [(7, 13), (3, 6)], [(7, 13), (3, 6)], {}),
    "image to two": ([3], [2, 2], 3, [(6, 5)], [(6, 5), (3, 2)], {}),
    "image to coarse only": ([3], [0, 4], 3, [(6, 8)], [None, (3, 4)], {}),
    "coarse only to fine": ([0, 3], [2], 1, [None, (3, 4)], [(6, 8)], {}),
    "coarse only": ([0, 3], [0, 2], 3, [None, (3, 4)], [None, (3, 4)], {}),
    "fine only": ([3, 0], [2, 0], 3, [(6, 4), None], [(6, 4), None], {}),
    "two to one": ([2, 3], [4], 1, [(4, 6), (2, 3)], [(4, 6)], {}),
    "three to three": (
        [1, 2, 2], [2, 1, 2], 1, [(8, 12), (4, 6), (2, 3)], [(8, 12), (4, 6), (2, 3)], {},
    ),
    "a gap": ([2, 0, 1], [0, 2, 1], 1, [(8, 4), None, (2, 1)], [None, (4, 2), (2, 1)], {}),
    "entry": ([2, 1], [1, 2], 3, [(8, 12), (4, 6)], [(4, 6), (2, 3)], {"entry_pool": True}),
    "entry odd": ([2, 1], [1, 2], 3, [(9, 13), (4, 6)], [(4, 6), (2, 3)], {"entry_pool": True}),
    "same scale": ([2, 3], [3, 2], 3, [(6, 8), (3, 4)], [(6, 8), (3, 4)], {"cross_scale": False}),
    "same scale, odd": ([2, 1], [1, 2], 1, [(5, 5), (4, 3)], [(5, 5), (4, 3)],
                        {"cross_scale": False}),
    "bilinear": ([2, 1, 2], [1, 2, 1], 1, [(9, 7), (5, 4), (3, 1)], [(9, 7), (5, 4), (3, 1)],
                 {"down": BILINEAR}),
    "bilinear 3x3": ([2, 1], [1, 2], 3, [(9, 7), (5, 4)], [(9, 7), (5, 4)], {"down": BILINEAR}),
    "one pixel": ([2], [3], 3, [(1, 1)], [(1, 1)], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_pixel_by_pixel(case):
    ins, outs, k, sizes, out_sizes, options = case
    xs, weight = make(ins, outs, sizes, k)
    ys = lmwp_ops.goctconv2d(xs, weight, ins, outs, **options)
    expected = pixel_by_pixel(
        [x.numpy() for x in xs], weight.numpy(), ins, outs, sizes=out_sizes, **options
    )
    assert [y.shape[-2:] for y in ys] == [size for size in out_sizes if size]
    assert len(ys) == len(expected)
    for y, want in zip(ys, expected, strict=True):
        torch.testing.assert_close(y, torch.from_numpy(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_epilogue(affine, slope):
    ins, outs = [2, 3], [3, 0, 2]
    xs, weight = make(ins, outs, [(8, 4), (4, 2)], 1)
    plain = lmwp_ops.goctconv2d(xs, weight, ins, outs)
    scales = [torch.randn(3).double(), torch.randn(2).double()]
    shifts = [torch.randn(3).double(), torch.randn(2).double()]
    slopes = [torch.randn(3).double(), torch.randn(2).double()]
    got = lmwp_ops.goctconv2d(
        xs,
        weight,
        ins,
        outs,
        affine=list(zip(scales, shifts, strict=True)) if affine else None,
        slope=slopes if slope else None,
    )
    for b, y in enumerate(plain):
        if affine:
            y = y * scales[b].view(1, -1, 1, 1) + shifts[b].view(1, -1, 1, 1)
        if slope:
            y = torch.where(y > 0, y, y * slopes[b].view(1, -1, 1, 1))
        torch.testing.assert_close(got[b], y)


@pytest.mark.parametrize("k", [1, 3])
def test_one_branch_is_an_ordinary_convolution(k):
    (x,), weight = make([3], [5], [(7, 13)], k)
    (y,) = lmwp_ops.goctconv2d([x], weight, [3], [5])
    torch.testing.assert_close(y, F.conv2d(x, weight, padding=k // 2))


def test_constant_features_give_constant_sums():
    # Pooling and resizing keep a constant, so with 1 x 1 every branch is a row sum of the weight.
    ins, outs = [2, 1, 3], [1, 2, 2]
    weight = torch.randn(5, 6, 1, 1, dtype=torch.float64)
    values = torch.randn(6, dtype=torch.float64)
    xs = [
        v.view(1, -1, 1, 1).expand(1, -1, *size)
        for v, size in zip(values.split(ins), [(8, 8), (4, 4), (2, 2)], strict=True)
    ]
    sums = (weight[:, :, 0, 0] @ values).split(outs)
    for down in (MAX, BILINEAR):
        for y, want in zip(
            lmwp_ops.goctconv2d(xs, weight, ins, outs, down=down), sums, strict=True
        ):
            torch.testing.assert_close(y, want.view(1, -1, 1, 1).expand_as(y))


@pytest.mark.parametrize(
    "options",
    [{}, {"entry_pool": True}, {"cross_scale": False}, {"down": BILINEAR}],
    ids=str,
)
def test_gradients(options):
    ins, outs = [2, 1], [1, 2]
    xs, weight = make(ins, outs, [(4, 4), (2, 2)], 3, batch=1)
    leaves = [t.requires_grad_() for t in (*xs, weight)]
    scale, shift, slope = (torch.randn(c, dtype=torch.float64) for c in (1, 1, 1))
    scale2, shift2, slope2 = (torch.randn(c, dtype=torch.float64) for c in (2, 2, 2))

    def run(a, b, w):
        return tuple(
            lmwp_ops.goctconv2d(
                [a, b],
                w,
                ins,
                outs,
                affine=[(scale, shift), (scale2, shift2)],
                slope=[slope, slope2],
                **options,
            )
        )

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_is_close_to_float64(dtype):
    ins, outs = [4, 5], [5, 4]
    xs, weight = make(ins, outs, [(16, 12), (8, 6)], 3)
    exact = lmwp_ops.goctconv2d(xs, weight, ins, outs)
    ys = lmwp_ops.goctconv2d([x.to(dtype) for x in xs], weight.to(dtype), ins, outs)
    for y, want in zip(ys, exact, strict=True):
        assert y.dtype == dtype
        error = (y.double() - want).abs().max() / want.abs().max()
        assert error < 8 * torch.finfo(dtype).eps


def test_autocast_takes_float32_weights_and_keeps_one_dtype():
    ins, outs = [4, 5], [5, 4]
    xs, weight = make(ins, outs, [(16, 12), (8, 6)], 1, dtype=torch.float32)
    exact = lmwp_ops.goctconv2d(xs, weight, ins, outs)
    xs = [x.bfloat16() for x in xs]
    with pytest.raises(ValueError, match=r"goctconv2d: weight: expected torch.bfloat16 like xs or"):
        lmwp_ops.goctconv2d(xs, weight.double(), ins, outs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ys = lmwp_ops.goctconv2d(xs, weight, ins, outs)
    for y, want in zip(ys, exact, strict=True):
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), want, rtol=0.05, atol=0.1)


def test_layouts_do_not_matter():
    ins, outs = [3, 2], [2, 3]
    xs, weight = make(ins, outs, [(8, 6), (4, 3)], 3)
    expected = lmwp_ops.goctconv2d(xs, weight, ins, outs)
    wide = torch.randn(2, 9, 8, 12, dtype=torch.float64)
    wide[:, 3:6, :, ::2] = xs[0]
    layouts = [
        [x.contiguous(memory_format=torch.channels_last) for x in xs],
        [wide[:, 3:6, :, ::2], xs[1]],
    ]
    for variant in layouts:
        for y, want in zip(lmwp_ops.goctconv2d(variant, weight, ins, outs), expected, strict=True):
            torch.testing.assert_close(y, want)


def test_empty_batch():
    xs, weight = make([2, 1], [1, 2], [(4, 4), (2, 2)], 3, batch=0)
    ys = lmwp_ops.goctconv2d(xs, weight, [2, 1], [1, 2])
    assert [tuple(y.shape) for y in ys] == [(0, 1, 4, 4), (0, 2, 2, 2)]


def test_compiles_without_graph_breaks():
    ins, outs = [2, 1], [1, 2]
    xs, weight = make(ins, outs, [(8, 4), (4, 2)], 3)
    compiled = torch.compile(lmwp_ops.goctconv2d, fullgraph=True, backend="eager")
    for y, want in zip(
        compiled(xs, weight, ins, outs), lmwp_ops.goctconv2d(xs, weight, ins, outs), strict=True
    ):
        torch.testing.assert_close(y, want)
