"""Two of every four inputs kept: what torch's kernels take, and how they are given it.

There is no GPU in these tests: a plain matrix stands in for the compressed one.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmwp_ops import SparseConvWeight
from lmwp_ops.ops.sparse_conv2d import packing, semi_structured

HALF = torch.float16
DEVICE = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "capability", "reason"),
    [
        ((32, 64, 1, 1), HALF, (8, 0), None),
        ((96, 128, 1, 1), torch.bfloat16, (9, 0), None),
        ((40, 64, 1, 1), HALF, (8, 0), "multiples of 32 outputs and 64 inputs; .* has 40 and 64"),
        ((32, 96, 1, 1), HALF, (8, 0), "multiples of 32 outputs and 64 inputs; .* has 32 and 96"),
        (
            (32, 64, 1, 1),
            torch.float32,
            (8, 0),
            "float16 and bfloat16; the weight is torch.float32",
        ),
        ((32, 64, 1, 1), HALF, (7, 5), "needs compute capability 8.0; cuda:0 has 7.5"),
    ],
)
def test_says_what_torch_has_no_kernel_for(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    capability: tuple[int, int],
    reason: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    found = semi_structured.why_not(shape, dtype, DEVICE)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(reason, found)


def test_convolves_by_what_is_compressed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = []

    def compress(matrix: Tensor) -> Tensor:
        assert matrix.is_contiguous()
        assert (matrix.view(-1, 4).ne(0).sum(1) <= 2).all()
        compressed.append(matrix.clone())
        return compressed[-1]

    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", compress)
    mask = torch.tensor([1, 0, 1, 0]).repeat(16).expand(32, 64)[:, :, None, None]
    weight = SparseConvWeight.from_dense(torch.randn(32, 64, 1, 1), mask, "2:4")
    x, bias = torch.randn(2, 64, 5, 7), torch.randn(32)
    for _ in range(2):
        y = semi_structured.convolve(x, weight.values, weight.to_dense(), bias)
        torch.testing.assert_close(y, F.conv2d(x, weight.to_dense(), bias), rtol=1e-4, atol=1e-4)
    assert len(compressed) == 1
    with torch.no_grad():
        weight.values.mul_(2)
    y = semi_structured.convolve(x, weight.values, weight.to_dense(), None)
    torch.testing.assert_close(y, F.conv2d(x, weight.to_dense()), rtol=1e-4, atol=1e-4)
    assert len(compressed) == 2


@pytest.mark.parametrize("kept", [[0, 1, 2, 4], [0, 1, 4], [0, 4, 5, 6], [0, 1, 4, 8]])
def test_indices_are_two_of_every_four(kept: list[int]) -> None:
    with pytest.raises(ValueError, match="two of every four"):
        packing.check_two_of_four(torch.tensor(kept, dtype=torch.int32).numpy(), (2, 4, 1, 1), 1)
