"""The CUDA kernels under NVIDIA's compute-sanitizer, where the toolkit is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmwp_ops import _loader

DRIVER = """
import torch, lmwp_ops
torch.manual_seed(0)
for stride in (1, 2):
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.float16):
            sizes = ((10, 33, 47), (7, 17, 24), (3, 1, 130))
            xs = [torch.randn(2, *size, device="cuda", dtype=dtype) for size in sizes]
            xs = [x.contiguous(memory_format=layout) for x in xs]
            weights = [torch.randn(x.shape[1], 1, 3, 3, device="cuda") for x in xs]
            affine = [(torch.rand(x.shape[1], device="cuda"),) * 2 for x in xs]
            slope = [torch.rand(x.shape[1], device="cuda") for x in xs]
            with lmwp_ops.use_backend("cuda"):
                parameters = [*weights, *slope, *(t for pair in affine for t in pair)]
                for t in (*xs, *parameters):
                    t.requires_grad_()
                ys = lmwp_ops.depthwise_scales(
                    xs, weights, stride=stride, affine=affine, slope=slope)
                sum(y.sum() for y in ys).backward()
            for kernel, pool in ((1, False), (3, True)):
                xs = [torch.randn(2, c, 54 >> b, 70 >> b, device="cuda", dtype=dtype)
                      for b, c in enumerate((10, 7))]
                xs = [x.contiguous(memory_format=layout) for x in xs]
                weight = torch.randn(22, 17, kernel, kernel, device="cuda")
                stages = [[torch.randn(c, 1, 3, 3, device="cuda") for c in (13, 9)]] * 2
                affine = [[(torch.rand(c, device="cuda"),) * 2 for c in (13, 9)]] * 3
                with torch.no_grad(), lmwp_ops.use_backend("cuda"):
                    lmwp_ops.il_block(
                        xs, weight, (10, 7), (13, 9), stages, entry_pool=pool, affine=affine)
            for shape in ((2, 20, 16, 24), (2, 33, 15, 17), (1, 1, 1, 1)):
                x = torch.randn(shape, device="cuda", dtype=dtype).contiguous(memory_format=layout)
                c = x.shape[1]
                layers = torch.randn(4, c, device="cuda"), torch.randn(c, 4, device="cuda")
                kernels = [torch.randn(2, k, k, device="cuda") for k in (3, 7)]
                with torch.no_grad(), lmwp_ops.use_backend("cuda"):
                    lmwp_ops.channel_spatial_attention(x, *layers, kernels)
for dtype in (torch.float32, torch.float16):
    for block in ((1, 1), (4, 1), (16, 16)):
        for side in (16, 7):
            x = torch.randn(2, 80, side, side, device="cuda", dtype=dtype)
            mask = torch.rand(3, 80 // block[1], device="cuda") < 0.5
            mask = mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
            dense = torch.randn(*mask.shape, 1, 1, device="cuda", dtype=dtype)
            format = "unstructured" if block == (1, 1) else "block"
            weight = lmwp_ops.SparseConvWeight.from_dense(
                dense, mask[:, :, None, None], format, block=None if block == (1, 1) else block)
            if dtype == torch.float32 or block[0] < 16:
                with torch.no_grad(), lmwp_ops.use_backend("cuda"):
                    lmwp_ops.sparse_conv2d(x, weight, slope=torch.rand(len(mask), device="cuda"))
torch.cuda.synchronize()
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_kernels_are_clean(device: torch.device, tmp_path: Path, tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    if reason := _loader.status()["_C_cuda"]:
        pytest.skip(reason)
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    options = ["--tool", tool, "--error-exitcode", "9", "--kernel-name", "kns=lmwp"]
    command = [sanitizer, *options, sys.executable, str(script)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
