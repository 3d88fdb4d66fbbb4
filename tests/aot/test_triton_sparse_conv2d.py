"""The Triton kernels of sparse_conv2d compiled ahead of time: no spills, wide accesses."""

import importlib.util
import re

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.sparse_conv2d import gradient_kernels, triton_kernels, triton_launch

from ..ops.sparse_conv2d.cases import Case, draw
from .architectures import NUMBERS
from .compiling import Kernels, assert_does_not_spill, compiled, variants

HALF = torch.float16
SINGLE = Case((8, 64, 56, 56), 64, "unstructured", density=0.2)
BLOCK = Case((8, 64, 56, 56), 64, "block", block=(16, 16), density=0.5)
CHANNELS = Case(
    (1, 64, 28, 28), 64, "channels", (3, 3), density=0.9, padding=(1, 1), epilogue="bias"
)
CASES = (
    *(SINGLE, BLOCK, CHANNELS),
    Case((64, 64, 56, 56), 64, "block", block=(4, 1), density=0.5),
    Case((64, 64, 56, 56), 64, "channels", density=0.9),
    Case((64, 64, 56, 56), 64, "channels", (3, 3), padding=(1, 1), density=0.9),
    Case((8, 16, 56, 56), 16, "taps", (3, 3), groups=16, padding=(1, 1), density=0.5),
    Case((8, 16, 56, 56), 16, "taps", (3, 3), stride=(2, 2), padding=(1, 1), density=0.5),
)


def launch(case: Case, dtype: torch.dtype) -> None:
    """The op and its backward."""
    args = draw(case, dtype)
    y = triton_launch.forward(*args)
    triton_launch.backward(y, *args, [True, True, *[False] * 5])


def kernels(case: Case, dtype: torch.dtype, arch: int) -> Kernels:
    found = compiled(lambda: launch(case, dtype), arch)
    every = {*vars(triton_kernels), *vars(gradient_kernels)}
    assert {name for name, _ in found} == {name for name in every if name.endswith("_kernel")}
    return found


@pytest.mark.parametrize("arch", NUMBERS)
def test_kernels_do_not_spill(arch, record_property, tmp_path):
    for case, dtype in ((SINGLE, torch.float32), (BLOCK, HALF), (CHANNELS, HALF)):
        assert_does_not_spill(kernels(case, dtype, arch), arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", NUMBERS)
@pytest.mark.parametrize("dtype", [torch.float32, HALF, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_kernel_spills(case, dtype, arch, record_property, tmp_path):
    assert_does_not_spill(kernels(case, dtype, arch), arch, tmp_path, record_property)


def test_maps_move_in_16_byte_accesses():
    for case, asynchronous in ((SINGLE, False), (BLOCK, True)):
        found = dict(kernels(case, HALF, 90))
        load = r"cp\.async\.cg" if asynchronous else r"ld\.global\S*\.v4\.b32"
        for name in ("fwd", "bwd_input", "bwd_weight"):
            ptx = found[f"sparse_conv2d_{name}_kernel"].asm["ptx"]
            assert re.search(load, ptx), name
            assert name == "bwd_weight" or re.search(r"st\.global\S*\.v4\.b32", ptx), name


def test_blocks_of_16_bits_are_multiplied_on_tensor_cores():
    for name, kernel in kernels(BLOCK, HALF, 90):
        assert "mma" in kernel.asm["ptx"], name


@pytest.mark.parametrize("format", ["unstructured", "block", "channels"])
def test_maps_and_weights_of_any_size_run_the_same_kernels(format):
    block = (16, 16) if format == "block" else None
    cases = [
        Case((n, channels, 16, columns), 48, format, density=density, block=block)
        for n, channels in ((1, 48), (2, 96))
        for columns in (32, 72)
        for density in (0.9, 1.0)
    ]
    torch.manual_seed(0)
    found = {tuple(variants(lambda c=case: launch(c, HALF))) for case in cases}
    assert len(found) == 1
