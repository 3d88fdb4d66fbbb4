"""The Triton kernels of channel_spatial_attention compiled ahead of time: no spills."""

import importlib.util
import re

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

from lmwp_ops.ops.channel_spatial_attention import (
    gradient_kernels,
    triton_kernels,
    triton_launch,
)

from ..ops.channel_spatial_attention.cases import draw
from .architectures import NUMBERS
from .compiling import Kernels, assert_does_not_spill, compiled, variants

MAP = (2, 20, 56, 56)
LARGE = (1, 20, 512, 512)  # takes blocks of more pixels
OPTIONS = (
    {},
    {"sizes": (3, 5, 7)},
    {"sizes": (), "bias": False, "max": False},
    {"gate": False, "mean": False, "sizes": (5,)},
)


def launch(shape: tuple[int, ...], dtype: torch.dtype, **options: object) -> None:
    """The op and its backward."""
    x, *rest = draw(shape, dtype, **options)
    triton_launch.forward(x, *rest)
    triton_launch.backward(x, x, *rest, [True] * 4)


def kernels(shape: tuple[int, ...], dtype: torch.dtype, arch: int, **options: object) -> Kernels:
    return compiled(lambda: launch(shape, dtype, **options), arch)


@pytest.mark.parametrize("arch", NUMBERS)
def test_kernels_do_not_spill(arch, record_property, tmp_path):
    found = kernels(MAP, torch.float16, arch)
    every = {*vars(triton_kernels), *vars(gradient_kernels)}
    assert {name for name, _ in found} == {name for name in every if name.endswith("_kernel")}
    assert_does_not_spill(found, arch, tmp_path, record_property)
    found = kernels(LARGE, torch.float32, arch)
    assert_does_not_spill(found, arch, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("arch", NUMBERS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [MAP, LARGE, (1, 300, 7, 7)], ids=str)
def test_no_option_spills(shape, dtype, options, arch, record_property, tmp_path):
    found = kernels(shape, dtype, arch, **options)
    assert_does_not_spill(found, arch, tmp_path, record_property)


def test_maps_move_in_16_byte_accesses():
    found = dict(kernels(LARGE, torch.float16, 80))
    moved = {"fwd_pool": (1, 0), "fwd_channels": (1, 0), "fwd": (1, 1), "bwd_sums": (2, 0)}
    for name, (loads, stores) in moved.items():
        ptx = found[f"channel_spatial_attention_{name}_kernel"].asm["ptx"]
        assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) >= loads
        assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) >= stores


@pytest.mark.parametrize("columns", [(72, 144, 576), (63, 99, 315)], ids=["vectors", "single"])
def test_maps_of_any_size_run_the_same_kernels(columns):
    sizes = [(n, 3, h, w) for n, h in ((1, 3), (2, 75), (16, 21)) for w in columns]
    found = {tuple(variants(lambda s=s: launch(s, torch.float32))) for s in sizes}
    assert len(found) == 1
