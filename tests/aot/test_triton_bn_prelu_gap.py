"""The Triton kernels of bn_prelu_gap compiled ahead of time: no spills, wide accesses."""

import importlib.util
import re

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.bn_prelu_gap import reference, triton_kernels, triton_launch

from ..ops.bn_prelu_gap.cases import Case, draw
from .architectures import NUMBERS
from .compiling import Kernels, assert_does_not_spill, compiled, variants

MAPS = ((2, 16, 32, 32), (2, 32, 32, 16))  # take the widest vectors in either layout
SMALL = ((4, 7, 5, 5),)
CASES = (
    Case(MAPS),
    Case(MAPS, torch.float16),
    Case(MAPS, torch.float16, "channels_last"),
    Case(SMALL),
    Case(SMALL, torch.bfloat16, "channels_last", prelu=False),
)


def launch(case: Case) -> None:
    """The op and its backward."""
    xs, *parameters = draw(case)
    triton_launch.forward(xs, *parameters)
    statistics = reference.forward(xs, *parameters)[2:]
    *parameters, eps = parameters
    triton_launch.backward(xs, xs, *parameters, *statistics, eps, [True] * 4)


def kernels(case: Case, arch: int) -> Kernels:
    found = compiled(lambda: launch(case), arch)
    assert {name for name, _ in found} == {n for n in vars(triton_kernels) if n.endswith("_kernel")}
    return found


@pytest.mark.parametrize("arch", NUMBERS)
def test_kernels_do_not_spill(arch, record_property, tmp_path):
    for case in CASES:
        assert_does_not_spill(kernels(case, arch), arch, tmp_path, record_property)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_maps_move_in_16_byte_accesses(layout):
    found = dict(kernels(Case(MAPS, torch.float16, layout), 80))
    for name, written in (("fwd_moments", 0), ("fwd", 4), ("bwd_sums", 0), ("bwd_input", 4)):
        ptx = found[f"bn_prelu_gap_{name}_kernel"].asm["ptx"]
        assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) >= (8 if "bwd" in name else 4)
        assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) == written


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("columns", [(72, 144, 576), (63, 99, 315)], ids=["vectors", "single"])
def test_maps_of_any_size_run_the_same_kernels(layout, columns):
    """But for small ones, of which a tile takes several."""
    sizes = [(n, 16, h, w) for n, h in ((1, 65), (2, 75), (16, 91)) for w in columns]
    found = {tuple(variants(lambda s=s: launch(Case((s, s), layout=layout)))) for s in sizes}
    assert len(found) == 1
