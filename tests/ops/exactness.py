"""How exact a result must be, and features in every layout."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

LAYOUTS = (
    *("nchw", "channels_last", "sliced", "sliced_channels_last"),
    *("expanded", "transposed"),
)


def feature(shape: Sequence[int], dtype: torch.dtype, layout: str) -> Tensor:
    """A random feature; the views are cut out of larger tensors full of NaN."""
    n, c, h, w = shape
    x = torch.randn(tuple(shape), dtype=torch.float64).to(dtype)
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        whole = torch.full((n, c + 2, h + 1, w + 3), torch.nan, dtype=dtype)
        whole[:, 1 : c + 1, :h, 2 : w + 2] = x
        return whole[:, 1 : c + 1, :h, 2 : w + 2]
    if layout == "sliced_channels_last":
        whole = torch.full((n, c + 3, h, w), torch.nan, dtype=dtype)
        whole = whole.contiguous(memory_format=torch.channels_last)
        whole[:, 2 : c + 2] = x
        return whole[:, 2 : c + 2]
    if layout == "expanded":
        return x[:, :, :, :1].expand(tuple(shape))
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    assert layout == "nchw"
    return x


def assert_as_exact(
    got: Sequence[Tensor],
    plain: Sequence[Tensor],
    truth: Sequence[Tensor],
    *,
    roundings: int = 1,
) -> None:
    """The error against `truth` is at most twice that of `plain`, plus roundings of the maximum.

    `truth` is float64 on the CPU; the others may be elsewhere. A few roundings are for sums of
    hundreds of products, whose order differs.
    """
    for y, p, t in zip(got, plain, truth, strict=True):
        assert y.shape == t.shape
        assert y.dtype == p.dtype
        if not y.numel():
            continue
        floor = roundings * torch.finfo(y.dtype).eps * t.abs().max().clamp(min=1)
        error, plain_error = ((r.cpu().double() - t).abs().max() for r in (y, p))
        assert error <= 2 * plain_error + floor


def errors_in_roundings(got: Sequence[Tensor], truth: Sequence[Tensor]) -> list[float]:
    """The largest error of each tensor in units of its dtype's rounding of the largest value."""
    return [
        float((y.double() - t).abs().max() / t.abs().max() / torch.finfo(y.dtype).eps)
        for y, t in zip(got, truth, strict=True)
        if y.numel()
    ]


def assert_same_for_any_threads(compute: Callable[[], Sequence[Tensor]]) -> None:
    """One, two and five threads give the same bits."""
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            results.append(compute())
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
