"""CPU kernels give the same results whatever torch's default dtype is."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import lmwp_ops
from lmwp_ops import _dispatch, _loader

pytestmark = pytest.mark.skipif(
    _loader.status()["_C"] is not None, reason=str(_loader.status()["_C"])
)

CPU = torch.device("cpu")
WITH_CPU_KERNEL = [
    name for name in _dispatch.registered() if "cpp" in _dispatch.op_named(name).candidates
]


@pytest.fixture(params=[torch.float64, torch.float16], ids=["float64", "float16"])
def other_default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", WITH_CPU_KERNEL)
def test_results_do_not_depend_on_it(name: str, other_default: torch.dtype) -> None:
    args = _dispatch.op_named(name).example(CPU, torch.float32, None)
    op = getattr(torch.ops.lmwp_ops, name)

    def results() -> list[Tensor]:
        with lmwp_ops.use_backend("cpp"):
            return [t for t in pytree.tree_leaves(op(*args)) if isinstance(t, Tensor)]

    expected = results()
    torch.set_default_dtype(other_default)
    found = results()
    assert expected
    for wanted, got in zip(expected, found, strict=True):
        assert got.dtype == wanted.dtype
        assert torch.equal(got, wanted)
