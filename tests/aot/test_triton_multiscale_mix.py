"""The Triton kernels of the multi-scale mixes compiled ahead of time: no spills."""

import importlib.util

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.multiscale_mix import gradient_kernels, triton_kernels, triton_launch
from lmwp_ops.ops.multiscale_norm_mix import gradient_kernels as norm_gradient_kernels
from lmwp_ops.ops.multiscale_norm_mix import triton_kernels as norm_kernels
from lmwp_ops.ops.multiscale_norm_mix import triton_launch as norm_launch

from ..ops.multiscale_mix.cases import draw, draw_norm
from .architectures import NUMBERS
from .compiling import assert_does_not_spill, compiled, variants

MAP = (2, 20, 56, 56)
ALL = [True] * 5


def launch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """multiscale_mix and its backward, with and without a gradient of mix."""
    u, *rest = draw(shape, dtype)
    triton_launch.forward(u, *rest)
    triton_launch.backward(u, u, *rest, ALL)
    triton_launch.backward(u, u, *rest, [True, True, False, True, True])


def launch_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """multiscale_norm_mix and its backward."""
    u, *rest = draw_norm(shape, dtype)
    *_, mean, var = norm_launch.forward(u, *rest)
    norm_launch.backward(u, u, *rest[:4], mean, var, *rest[4:], ALL)


LAUNCHES = {
    "multiscale_mix": (launch, (triton_kernels, gradient_kernels)),
    "multiscale_norm_mix": (launch_norm, (norm_kernels, norm_gradient_kernels)),
}
each_op = pytest.mark.parametrize("op", LAUNCHES)


@pytest.mark.parametrize("arch", NUMBERS)
@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.float32, marks=pytest.mark.slow)], ids=str
)
@each_op
def test_kernels_do_not_spill(op, dtype, arch, record_property, tmp_path):
    run, modules = LAUNCHES[op]
    found = compiled(lambda: run(MAP, dtype), arch)
    every = {name for module in modules for name in vars(module)}
    ours = {name for name, _ in found if name.startswith(f"{op}_")}
    assert ours == {name for name in every if name.endswith("_kernel")}
    assert_does_not_spill(found, arch, tmp_path, record_property)


@each_op
def test_maps_of_any_size_run_the_same_kernels(op):
    run, _ = LAUNCHES[op]
    sizes = [(n, 3, h, w) for n, h in ((1, 17), (2, 76), (16, 21)) for w in (16, 63, 144)]
    found = {tuple(variants(lambda s=s: run(s, torch.float32))) for s in sizes}
    assert len(found) == 1
