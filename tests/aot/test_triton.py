"""The Triton kernels compiled ahead of time for every architecture: no spills, wide accesses."""

import importlib.util
import re

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.depthwise_scales import triton_kernels, triton_launch

from ..ops.depthwise_scales.cases import Case, draw, eager
from .architectures import NUMBERS, OLDEST_GPU
from .compiling import Kernels, assert_does_not_spill, compiled, variants

MAPS = ((2, 16, 32, 32), (2, 32, 16, 16))  # take the widest vectors in either layout

# What networks launch; bfloat16 differs from float16 in conversions alone.
EVERYWHERE = (
    Case(MAPS, dtype=torch.float16),
    Case(MAPS, stride=2),
    Case(MAPS, dtype=torch.float16, layout="channels_last"),
)
OLDEST = (
    Case(MAPS, dtype=torch.bfloat16),
    Case(MAPS, dtype=torch.bfloat16, layout="channels_last"),
    Case(((2, 10, 15, 17),), layout="channels_last"),
)
LARGE = tuple(
    Case(MAPS, kernel, stride, dtype=dtype, layout=layout)
    for kernel in (3, 5, 7)
    for stride in (1, 2)
    for dtype in (torch.float16, torch.float32)
    for layout in ("nchw", "channels_last")
)


def launch(case: Case) -> None:
    """The op and its backward."""
    args = draw(case)
    triton_launch.forward(*args)
    triton_launch.backward([torch.ones_like(y) for y in eager(args)], *args, [True] * 5)


def kernels(case: Case, arch: int) -> Kernels:
    found = compiled(lambda: launch(case), arch)
    assert {name for name, _ in found} == {n for n in vars(triton_kernels) if n.endswith("_kernel")}
    return found


@pytest.mark.parametrize("arch", NUMBERS)
def test_kernels_do_not_spill(arch, record_property, tmp_path):
    for case in EVERYWHERE + (OLDEST if arch == OLDEST_GPU else ()):
        assert_does_not_spill(kernels(case, arch), arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", NUMBERS)
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_no_kernel_spills(case, arch, record_property, tmp_path):
    assert_does_not_spill(kernels(case, arch), arch, tmp_path, record_property)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_maps_move_in_16_byte_accesses(layout):
    found = dict(kernels(Case(MAPS, dtype=torch.float16, layout=layout), 80))
    for name in ("depthwise_scales_fwd_kernel", "depthwise_scales_bwd_input_kernel"):
        ptx = found[name].asm["ptx"]
        rows = triton_kernels.CONFIGS["fwd"][0]["ROWS"]
        assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) >= rows + 2
        assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) == rows


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("columns", [(8, 16, 24, 64), (1, 7, 13, 35)], ids=["vectors", "single"])
def test_maps_of_any_size_run_the_same_kernels(layout, columns):
    sizes = [(n, 16, h, w) for n, h in ((1, 1), (2, 7), (16, 16)) for w in columns]
    found = {tuple(variants(lambda s=s: launch(Case((s, s), layout=layout)))) for s in sizes}
    assert len(found) == (1 if layout == "nchw" or columns[0] > 1 else 2)
