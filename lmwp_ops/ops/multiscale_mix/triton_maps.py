"""The scales of a multi-scale mix on a GPU, and what is made of a feature there.

`multiscale_mix` and `multiscale_norm_mix` share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._tuning import tuned
from lmwp_ops.ops.multiscale.triton_launch import gather
from lmwp_ops.ops.multiscale_mix import triton_kernels as kernels
from lmwp_ops.ops.multiscale_mix.gradient_kernels import Part
from lmwp_ops.ops.multiscale_mix.triton_kernels import Branch, Coarse, Level, Map, Steps
from lmwp_ops.ops.sizes.planes import ceil_div, planar, power_of_two
from lmwp_ops.ops.sizes.triton_kernels import passed

Tensors = Sequence[Tensor]

_FEWEST_PIXELS = 64  # of a program
_ENOUGH_PROGRAMS = 1024  # to fill any GPU
_MOST_SPLITS = 64  # of a plane


@dataclass(frozen=True, slots=True)
class Scales:
    """One feature and its branches; `config` is that of a launch."""

    u: Tensor
    octaves: Sequence[int]
    dilations: Sequence[int]
    config: dict[str, int]

    @property
    def coarse(self) -> list[int]:
        """The octaves of the levels that are smaller than the feature."""
        return sorted({octave for octave in self.octaves if octave})

    def size(self, octave: int) -> tuple[int, int]:
        height, width = (ceil_div(size, 2**octave) for size in self.u.shape[2:])
        return height, width

    def empty_maps(self) -> list[Tensor]:
        """One for each coarse level, in float32."""
        shapes = ((*self.u.shape[:2], *self.size(octave)) for octave in self.coarse)
        return [self.u.new_empty(shape, dtype=torch.float32) for shape in shapes]

    def of_branches(self, whole: Tensor, maps: Tensors) -> tuple[Tensor, ...]:
        """For each branch the map of its level."""
        by_octave = dict(zip(self.coarse, maps, strict=True))
        return tuple(by_octave.get(octave, whole) for octave in self.octaves)

    def launch(self, kernel: Any, programs: int, *args: Any, **constants: Any) -> None:
        options = {**self.config, "maxnreg": _triton.MAX_REGISTERS}
        _triton.launch(kernel, programs, self.u.device, *args, **constants, **options)

    def levels(self, octaves: Sequence[int], results: Tensors) -> tuple[tuple[Level, ...], int]:
        """Those of a launch, and its programs."""
        levels, first = [], 0
        for octave, result in zip(octaves, results, strict=True):
            blocks = ceil_div(result.shape[2] * result.shape[3], self.config["PIXELS"])
            levels.append(Level(first, blocks, octave, map_of(result)))
            first += blocks * result.shape[0] * result.shape[1]
        return tuple(levels), first

    def parts(self, sources: Tensors, grads: Tensors) -> tuple[tuple[Part, ...], int, int]:
        """How the planes of each branch are divided: their parts, how many, and all programs."""
        planes = self.u.shape[0] * self.u.shape[1]
        blocks = [
            ceil_div(source.shape[2] * source.shape[3], self.config["PIXELS"]) for source in sources
        ]
        enough = ceil_div(_ENOUGH_PROGRAMS, max(1, planes * len(blocks)))
        splits = min(enough, _MOST_SPLITS, max(blocks))
        parts = []
        for k, (source, grad) in enumerate(zip(sources, grads, strict=True)):
            steps = ceil_div(blocks[k], splits)
            first = k * planes * splits
            parts.append(Part(first, steps, self._dilation(k), map_of(source), map_of(grad)))
        return tuple(parts), splits, len(blocks) * planes * splits

    def _dilation(self, k: int) -> int:
        """Beyond the map all taps but the centre read padding, whatever the dilation."""
        return min(self.dilations[k], max(self.size(self.octaves[k])))

    def pooled(self) -> list[Tensor]:
        """u at each coarse level."""
        maps = self.empty_maps()
        if maps:
            levels, programs = self.levels(self.coarse, maps)
            self.launch(
                kernels.multiscale_mix_pool_kernel,
                programs,
                *(self.u, tuple(maps), passed(map_of(self.u)), passed(levels)),
                passed(self.u.shape[1]),
            )
        return maps

    def spread(self, grad: Tensor) -> list[Tensor]:
        """The gradient of what was resized from each coarse level."""
        sizes = [self.size(octave) for octave in self.coarse]
        return gather([grad] * len(sizes), sizes) if sizes else []

    def sum(
        self,
        sources: Tensors,
        parameters: tuple[Tensor, ...],
        result: Tensor,
        *,
        weighed: bool = True,
        adjoint: bool = False,
    ) -> None:
        """Fill `result`: the sum of all branches, or its adjoint. Coarse levels come first."""
        maps = self.empty_maps()
        for octaves, results, lower in ((self.coarse, maps, []), ([0], [result], maps)):
            if not results:
                continue
            levels, programs = self.levels(octaves, results)
            branches = (
                Branch(octave, self._dilation(k), map_of(source))
                for k, (octave, source) in enumerate(zip(self.octaves, sources, strict=True))
            )
            coarser = tuple(
                Coarse(octave, map_of(low)) for octave, low in zip(self.coarse, lower, strict=False)
            )
            self.launch(
                kernels.multiscale_mix_sum_kernel,
                programs,
                *(tuple(sources), tuple(lower) or (result,), parameters, tuple(results)),
                *(passed(map_of(self.u)), passed(tuple(branches)), passed(coarser or (0,))),
                *(passed(levels), passed(self.u.shape[1])),
                COARSE=len(lower),
                SHARES=weighed,
                ADJOINT=adjoint,
            )


def scales(u: Tensor, octaves: Sequence[int], dilations: Sequence[int]) -> Scales:
    """Those of a call, and how its kernels are launched."""
    dtype = str(u.dtype).removeprefix("torch.")
    key = f"{dtype} {len(octaves)} branches 2^{u.numel().bit_length()}"
    config = tuned("multiscale_mix", key, kernels.CONFIGS, u.device)
    pixels = max(_FEWEST_PIXELS, power_of_two(u.shape[2] * u.shape[3]))
    pixels = min(config["PIXELS"], pixels)
    warps = max(1, config["num_warps"] * pixels // config["PIXELS"])
    return Scales(planar(u), octaves, dilations, {"PIXELS": pixels, "num_warps": warps})


def map_of(x: Tensor) -> Map:
    """Extents and steps of a feature whose planes are dense."""
    height, width = x.shape[2:]
    return Map(height, width, height * width, Steps(x.stride(0), x.stride(1)))
