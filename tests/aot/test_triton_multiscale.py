"""The Triton kernels of goctconv2d and dilated_bank compiled ahead of time: no spills."""

import importlib.util
import re
from typing import Any

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.dilated_bank import triton_launch as bank
from lmwp_ops.ops.goctconv2d import triton_launch as goct

from ..ops.dilated_bank import test_dilated_bank_kernels as banks
from ..ops.goctconv2d import cases
from ..ops.goctconv2d.cases import Case
from .architectures import NUMBERS
from .compiling import assert_does_not_spill, compiled, variants

MIDDLE = Case((10, 10), (10, 10), (112, 112), batch=8)  # a block of CSNet
ENTRY = Case((10, 10), (20, 20), (112, 112), 3, 4, entry_pool=True)
HEAD = Case((12, 24, 24), (12, 24, 24), (112, 112), 3, 2)  # as many scales as CSNet has
MODES = (MIDDLE, HEAD, Case((10, 20), (20, 20), (56, 56), 3, bilinear_down=True), ENTRY)


def launch(op: Any, args: tuple[Any, ...]) -> None:
    """Values and gradients of a call; the epilogue's own gradients launch nothing else."""
    ys = op.forward(*args)
    bare = (*args[:2], [], [], [], *args[5:])
    op.backward(ys, *bare, [True, True, False, False, False])


@pytest.mark.parametrize("arch", NUMBERS)
def test_kernels_do_not_spill(arch, record_property, tmp_path):
    kernels = compiled(lambda: launch(goct, cases.draw(MIDDLE)), arch)
    assert_does_not_spill(kernels, arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", NUMBERS)
@pytest.mark.parametrize("case", MODES, ids=str)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_no_kernel_spills(case, dtype, arch, record_property, tmp_path):
    narrow = cases.in_dtype(cases.draw(case), dtype)
    kernels = compiled(lambda: launch(goct, narrow), arch)
    assert_does_not_spill(kernels, arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", NUMBERS)
def test_the_bank_does_not_spill(arch, record_property, tmp_path):
    kernels = compiled(lambda: launch(bank, banks.draw(banks.FUSION)), arch)
    assert_does_not_spill(kernels, arch, tmp_path, record_property)


@pytest.mark.parametrize(
    ("dtype", "width"), [(torch.float32, 4), (torch.float16, 2)], ids=["float32", "float16"]
)
def test_maps_move_in_vectors(dtype, width):
    args = cases.in_dtype(cases.draw(MIDDLE), dtype)
    (_, kernel), *_ = compiled(lambda: goct.forward(*args), 80)
    ptx = kernel.asm["ptx"]
    assert re.search(rf"ld\.global\S*\.v{width}\.b32", ptx)
    assert re.search(rf"st\.global\S*\.v{width}\.b32", ptx)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("columns", [(8, 16, 40), (6, 14, 26)], ids=["vectors", "single"])
def test_maps_of_any_size_run_the_same_kernels(kernel, columns):
    sizes = [(n, (h, w)) for n, h in ((1, 2), (2, 14), (16, 16)) for w in columns]
    found = {
        tuple(
            variants(lambda s=s: launch(goct, cases.draw(Case((3, 5), (5, 3), s[1], kernel, s[0]))))
        )
        for s in sizes
    }
    assert len(found) == 1
