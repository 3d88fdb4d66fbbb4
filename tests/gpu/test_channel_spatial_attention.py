"""What is particular to the CUDA kernel of channel_spatial_attention: an image in shared memory."""

import pytest
import torch
from torch import Tensor

import lmwp_ops
from lmwp_ops import _loader
from lmwp_ops._examples import convert
from lmwp_ops.ops.channel_spatial_attention import cuda_limits

from ..ops.channel_spatial_attention.cases import draw, eager
from ..ops.exactness import assert_as_exact
from ..ops.feature_ops import Args, double

op = torch.ops.lmwp_ops.channel_spatial_attention.default


@pytest.fixture(autouse=True)
def _there_is_one(device: torch.device) -> None:
    if reason := _loader.status()["_C_cuda"]:
        pytest.skip(reason)


def most_rows(device: torch.device, dtype: torch.dtype, width: int) -> int:
    """Of an image with 16 channels that fits."""
    rows, there = 1, cuda_limits.most_shared_bytes(device)
    while cuda_limits.shared_bytes((16, rows + 1, width), dtype.itemsize, 2, 3, 7) <= there:
        rows += 1
    return rows


def assert_right(args: Args) -> None:
    with lmwp_ops.use_backend("cuda"):
        y = op(*args)
    near = convert(args, Tensor.cpu)
    assert_as_exact([y], [eager(*near)], [eager(*double(near))], roundings=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("width", [32, 31])
def test_the_largest_image_that_fits(
    on_gpu, device: torch.device, dtype: torch.dtype, width: int
) -> None:
    rows = most_rows(device, dtype, width)
    assert_right(convert(draw((3, 16, rows, width), dtype), on_gpu))
    larger = convert(draw((3, 16, rows + 1, width), dtype), on_gpu)
    with lmwp_ops.use_backend("cuda"), pytest.raises(lmwp_ops.BackendError, match="shared memory"):
        op(*larger)


@pytest.mark.parametrize("first", [0, 1, 3])
def test_images_that_begin_anywhere(on_gpu, first: int) -> None:
    x = on_gpu(draw((3, 9, 11, 7), torch.float16)[0])[:, first:5]
    _, *parameters = convert(draw((3, 5 - first, 11, 7), torch.float16), on_gpu)
    assert_right((x, *parameters))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_an_image_has_the_same_bits_alone_and_among_many(on_gpu, dtype: torch.dtype) -> None:
    x, *rest = convert(draw((400, 33, 23, 24), dtype), on_gpu)
    with lmwp_ops.use_backend("cuda"):
        assert torch.equal(op(x, *rest)[7:8], op(x[7:8], *rest))


@pytest.mark.alone
def test_beyond_32_bit_offsets_with_many_images(device: torch.device) -> None:
    images = 12_000_000
    needed = 2 * images * 3 * 64 * 2 * 1.1  # bytes; 2.3e9 elements
    if torch.cuda.mem_get_info(device)[0] < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free GPU memory")
    rest = convert(draw((1, 3, 8, 8), torch.float16)[1:], lambda t: t.to(device))
    x = torch.empty(images, 3, 8, 8, dtype=torch.float16, device=device).normal_()
    with lmwp_ops.use_backend("cuda"), torch.no_grad():
        torch.testing.assert_close(op(x, *rest)[-5:], op(x[-5:], *rest), rtol=0, atol=0)
