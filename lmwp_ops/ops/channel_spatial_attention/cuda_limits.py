"""Which images the CUDA kernel takes: those that fit into the shared memory of a thread block."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST_BYTES = 48 << 10  # of a block on any GPU


@functools.cache
def most_shared_bytes(device: torch.device) -> int:
    """Shared memory that a block can have on `device`."""
    properties = torch.cuda.get_device_properties(device)
    return int(getattr(properties, "shared_memory_per_block_optin", _LEAST_BYTES))


def shared_bytes(
    image: Sequence[int], element_bytes: int, pools: int, hidden: int, size: int
) -> int:
    """Shared memory of a block for an image [C, H, W], as `AttentionLayout` of the kernel has it.

    `hidden` units between the layers and kernels of up to `size` x `size`; 0 for no such gate.
    """
    channels, height, width = image
    radius = size // 2
    frame = (height + 2 * radius) * (width + radius) + radius if size else 0
    pooled = pools * channels + hidden if hidden else 0
    floats = channels + pools * size**2 + max(pools * frame, pooled)
    return -(-channels * height * width * element_bytes // 16) * 16 + 16 + 4 * floats


def refuse(
    x: Tensor,
    reduce: Sequence[Tensor],
    expand: Sequence[Tensor],
    spatial: Sequence[Tensor],
    mean: bool,
    max: bool,
) -> str | None:
    """Why the kernel cannot take an image of x, or None; malformed arguments pass here."""
    if x.dim() != 4:
        return None
    size = sorted([0, *(kernel.shape[-1:].numel() for kernel in spatial)])[-1]
    hidden = reduce[0].shape[:1].numel() if reduce else 0
    needed = shared_bytes(x.shape[1:], x.element_size(), mean + max, hidden, size)
    there = most_shared_bytes(x.device)
    if needed <= there:
        return None
    return f"an image needs {needed} bytes of shared memory; a block has {there}"
