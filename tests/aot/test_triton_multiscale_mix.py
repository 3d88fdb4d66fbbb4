"""The Triton kernels of the multi-scale mixes compiled ahead of time: no spills."""

import importlib.util

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.multiscale_mix import gradient_kernels, triton_kernels, triton_launch

from ..ops.multiscale_mix.cases import draw
from .architectures import NUMBERS
from .compiling import assert_does_not_spill, compiled, variants

MAP = (2, 20, 56, 56)
ALL = [True] * 5


def launch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The op and its backward, with and without a gradient of mix."""
    u, *rest = draw(shape, dtype)
    triton_launch.forward(u, *rest)
    triton_launch.backward(u, u, *rest, ALL)
    triton_launch.backward(u, u, *rest, [True, True, False, True, True])


@pytest.mark.parametrize("arch", NUMBERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_kernels_do_not_spill(dtype, arch, record_property, tmp_path):
    found = compiled(lambda: launch(MAP, dtype), arch)
    every = {*vars(triton_kernels), *vars(gradient_kernels)}
    ours = {name for name, _ in found if name.startswith("multiscale_mix")}
    assert ours == {name for name in every if name.endswith("_kernel")}
    assert_does_not_spill(found, arch, tmp_path, record_property)


def test_maps_of_any_size_run_the_same_kernels():
    sizes = [(n, 3, h, w) for n, h in ((1, 17), (2, 76), (16, 21)) for w in (16, 63, 144)]
    found = {tuple(variants(lambda s=s: launch(s, torch.float32))) for s in sizes}
    assert len(found) == 1
