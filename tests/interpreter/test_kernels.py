"""The Triton kernels in Triton's interpreter, held against float64."""

import importlib.metadata
import importlib.util

import numpy
import pytest

from .interpreted import run_interpreted

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)


def release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


triton = importlib.metadata.version("triton")
if release(triton) < (3, 9) and release(numpy.__version__) >= (2, 4):
    reason = f"the interpreter of triton {triton} needs numpy below 2.4"
    pytest.skip(reason, allow_module_level=True)

CHECKS = {
    "bn_prelu_gap": ("forward", "gradients", "options", "statistics"),
    "channel_spatial_attention": ("forward", "gradients", "steps", "ties"),
    "depthwise_scales": ("forward", "gradients", "options", "public"),
    "multiscale": ("sums", "defaults", "options", "dilations"),
    "multiscale_mix": ("forward", "gradients", "levels", "parts", "kinds"),
    "multiscale_norm_mix": ("forward", "gradients", "parts", "kinds"),
    "sparse_conv2d": ("forward", "gradients", "parts", "layouts"),
}
MAXIMUM = "tl.maximum(best, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)"
FAULTS = {
    "means of rounded means": ("bn_prelu_gap statistics", "2 * distances +", "0 *"),
    "tiles left out": ("bn_prelu_gap forward", "range(0, s.tiles, TILES)", "range(0, 1, TILES)"),
    "tiles counted as full": ("bn_prelu_gap forward", "s.parts * PIXELS, PIXELS)", "1, PIXELS)"),
    "gradients through no variance": ("bn_prelu_gap gradients", "- centred * by_x", ""),
    "parts left out": ("channel_spatial_attention steps", "(part < s.parts)", "(part < 1)"),
    "the last of equal maxima": (
        "channel_spatial_attention ties",
        "(value > best)",
        "(value >= best)",
    ),
    "a maximum is no NaN": (
        "channel_spatial_attention ties",
        'tl.where(wrong, float("nan"), found)',
        "found",
    ),
    "kernels in a corner": ("channel_spatial_attention forward", "down + REACH", "down"),
    "spatial taps not turned": (
        "channel_spatial_attention gradients",
        "-down, -right",
        "down, right",
    ),
    "reads below the map": ("depthwise_scales forward", "(row // DIVISOR < height)", "True"),
    "reads left of the map": ("depthwise_scales forward", "column > 0", "column >= 0"),
    "depthwise taps": ("depthwise_scales gradients", "K * K - 1 - i if FLIP", "i if FLIP"),
    "steps overlap": ("depthwise_scales options", "block * s.steps + step", "block + step"),
    "a part left out": ("depthwise_scales options", "part < s.parts", "part < 1"),
    "the last maximum": ("multiscale defaults", "(value > best)", "(value >= best)"),
    "NaN lost": ("multiscale defaults", MAXIMUM, "tl.where(best > value, best, value * 1.0)"),
    "taps not turned": ("multiscale dilations", "K * K - 1 - tap", "tap"),
    "splits overlap": ("multiscale defaults", "split * s.steps", "split"),
    "windows as if full": (
        "multiscale_mix forward",
        "m.height - row * size, size",
        "size * row + size, size",
    ),
    "zeros multiplied": ("multiscale_mix levels", "used = used & (share != 0)", "used = used"),
    "mixed taps not turned": ("multiscale_mix gradients", "TAPS - 1 - tap if FLIP", "tap if FLIP"),
    "parts of a plane overlap": (
        "multiscale_mix parts",
        "block = split * plain(parts[k].blocks) + step",
        "block = split + step",
    ),
    "squares around the pivot": (
        "multiscale_norm_mix forward",
        "further * (2 * distances + further * count)",
        "0.0",
    ),
    "no gradient through the mean": ("multiscale_norm_mix gradients", "- constant", ""),
    "parts of statistics left out": (
        "multiscale_norm_mix parts",
        "plain(splits) * plain(images)",
        "plain(images)",
    ),
    "pruned channels left out": (
        "sparse_conv2d forward",
        "range(begin, end, c",
        "range(end, end, c",
    ),
    "slabs left out": ("sparse_conv2d parts", "range(s.slabs)", "range(1)"),
    "pruned taps not turned": (
        "sparse_conv2d layouts",
        "padding - tap * dilation",
        "padding - (2 - tap) * dilation",
    ),
    "splits of pruned sums overlap": (
        "sparse_conv2d parts",
        "first_tile = split *",
        "first_tile = 0 * split *",
    ),
    "entry pool": ("multiscale options", "value = value * 0.25", "value = value * 0.5"),
}


@pytest.mark.parametrize(
    ("kernels", "checks"), [(kernels, checks) for kernels in CHECKS for checks in CHECKS[kernels]]
)
def test_matches_float64(kernels: str, checks: str) -> None:
    done = run_interpreted(kernels, checks)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]


# In every run the first fault of each op; the others are slow.
FIRST = {where.split()[0]: name for name, (where, *_) in reversed(FAULTS.items())}.values()


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in FAULTS],
)
def test_a_fault_is_seen(fault: str) -> None:
    where, sound, faulty = FAULTS[fault]
    done = run_interpreted(*where.split(), sound, faulty)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("AssertionError"), done.stderr[-3000:]
