"""Whether Triton can run here. It is imported by the first kernel that runs, not before."""

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lmwp_ops._layout import leading

_OLDEST = (3, 6)  # that the kernels were compiled and interpreted with
MAX_REGISTERS = 255  # of a thread; by itself the assembler spills a few to save the others


def interprets() -> bool:
    """Whether kernels run in Triton's interpreter, which takes tensors on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "y", "yes")


def why_not() -> str | None:
    """Why no Triton kernel can run, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "the triton that is there has no version"
    if tuple(int(part) for part in found.split(".")[:2]) < _OLDEST:
        return f"it needs triton {'.'.join(map(str, _OLDEST))}; found {found}"
    if torch.version.cuda is None and not interprets():
        return f"torch {torch.__version__} is built without CUDA"
    return None


def refuse(xs: Tensor | list[Tensor], *_: object) -> str | None:
    """Why a Triton kernel cannot take these features, or None."""
    like = leading(xs)
    if like.device.type != "cuda" and not interprets():
        return f"it runs on cuda; xs is on {like.device.type}"
    if like.dtype == torch.float64:
        return "it computes in float32; xs is float64"
    return None


def launcher(package: str, function: str) -> Callable[..., Any]:
    """`function` of `<package>.triton_launch`, which is imported when it is called."""

    def run(*args: Any) -> Any:
        return getattr(importlib.import_module(f"{package}.triton_launch"), function)(*args)

    return run


def launch(kernel: Any, programs: int, device: torch.device, *args: Any, **constants: Any) -> None:
    """Run a kernel on the current stream of `device`; without programs there is nothing to run."""
    if not programs:
        return
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(programs,)](*args, **constants, enable_fp_fusion=True)
