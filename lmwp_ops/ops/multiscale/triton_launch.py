"""Launches of the Triton kernels of multi-scale convolutions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lmwp_ops import _triton
from lmwp_ops._tuning import tuned
from lmwp_ops.ops.multiscale import gradient_kernels, triton_kernels
from lmwp_ops.ops.multiscale.gradient_kernels import BlockSizes, GatherSizes
from lmwp_ops.ops.multiscale.reading_kernels import Read
from lmwp_ops.ops.multiscale.triton_kernels import ResultSizes, TermSizes
from lmwp_ops.ops.sizes.triton_kernels import MOST, Strides, passed

Config = dict[str, int]
Size = tuple[int, int]
Mode = tuple[str, int]
"""How a source is read at the scale of a result; see the kernels."""

SAME: Mode = ("same", 1)
MAX_RESULTS = 8  # of one launch; a program looks its own up among them
MOST_SPLITS = 64
_ENOUGH_PROGRAMS = 2048  # to fill any GPU
_FEW_PIXELS = 2**15
_VECTOR_BYTES = 16


@dataclass(frozen=True, slots=True)
class Term:
    """One convolution: of `source` with the block of `weight` that begins at `offset`."""

    source: Tensor
    size: Size  # of the source, after the entry pool
    mode: Mode
    weight: Tensor
    offset: int = 0
    dilation: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """A sum of convolutions and its epilogue.

    `rows` and `columns` are the steps in its weights from one channel of the result, and of a
    source, to the next.
    """

    y: Tensor
    size: Size  # before an adjoint entry pool
    terms: Sequence[Term]
    rows: int
    columns: int
    scale: Tensor | None = None
    shift: Tensor | None = None
    slope: Tensor | None = None
    maxima: Tensor | None = None  # what adjoint pools were taken from


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a weight whose gradient is wanted; rows and columns as those of a result."""

    grad: Tensor
    x: Tensor
    size: Size  # of x, after the entry pool
    mode: Mode
    offset: int
    rows: int
    columns: int
    dilation: int = 1


class ResultTensors(NamedTuple):
    """Tensors of one result; the result itself in the place of one that is not read."""

    sources: tuple[Tensor, ...]  # [N, C, H, W] of each term
    weights: tuple[Tensor, ...]
    result: Tensor  # [N, O, H, W]
    scale: Tensor  # [O], like shift and slope
    shift: Tensor
    slope: Tensor
    maxima: Tensor  # like result


class BlockTensors(NamedTuple):
    grad: Tensor
    x: Tensor


class GatherTensors(NamedTuple):
    grad: Tensor
    result: Tensor  # dense, float32


def size_of(x: Tensor) -> Size:
    """Height and width."""
    return x.shape[2], x.shape[3]


def most_gathered(source: Size, result: Size) -> int:
    """From how many pixels the adjoint of a resize from `result` to `source` gathers one."""
    return max(-(-2 * s // r) for s, r in zip(source, result, strict=True))


def gather(grads: Sequence[Tensor], targets: Sequence[Size]) -> list[Tensor]:
    """Gradients, in float32, of what was resized bilinearly from `targets`, in one launch for
    every eight."""
    gathered = [
        torch.empty(*grad.shape[:2], *size, device=grad.device)
        for grad, size in zip(grads, targets, strict=True)
    ]
    for i in range(0, len(grads), MAX_RESULTS):
        _gather(grads[i : i + MAX_RESULTS], gathered[i : i + MAX_RESULTS])
    return gathered


def _gather(grads: Sequence[Tensor], gathered: Sequence[Tensor]) -> None:
    (config,) = gradient_kernels.GATHER_CONFIGS
    sizes, first = [], 0
    for grad, result in zip(grads, gathered, strict=True):
        size = most_gathered(size_of(grad), size_of(result))
        read = _read(grad, size_of(grad), 1)
        sizes.append(GatherSizes(first, grad.shape[0], *size_of(result), size, read))
        first += -(-result.numel() // config["PIXELS"])
    _triton.launch(
        gradient_kernels.multiscale_gather_kernel,
        first,
        gathered[0].device,
        tuple(GatherTensors(grad, result) for grad, result in zip(grads, gathered, strict=True)),
        passed(tuple(sizes)),
        WIDE=_need_64_bits(grads, 2 * max(result.numel() for result in gathered)),
        **config,
    )


def convolve(
    results: Sequence[Result], kernel_size: int, *, entry_pool: bool, adjoint: bool
) -> None:
    """Fill the results, in one launch for every eight."""
    for i in range(0, len(results), MAX_RESULTS):
        _convolve(results[i : i + MAX_RESULTS], kernel_size, entry_pool, adjoint)


def _convolve(results: Sequence[Result], kernel_size: int, entry_pool: bool, adjoint: bool) -> None:
    widest = max(result.y.shape[1] for result in results)
    config = _conv_config(results, kernel_size, adjoint, widest)
    wide = any(_is_wide(result, config["PIXELS"]) for result in results)

    def vector(result: Result) -> int:
        if kernel_size > 1 or (entry_pool and adjoint):
            return 1
        whole = [] if entry_pool else [t.source for t in result.terms if t.mode == SAME]
        return _vector([result.y, *whole], config["PIXELS"] // (32 * config["num_warps"]))

    kinds: dict[object, list[Result]] = {}
    vectors: list[int] = []
    for result in results:
        lanes = vector(result)
        if not kinds.get(key := (lanes, _kind(result), id(result) if wide else None)):
            vectors.append(lanes)
        kinds.setdefault(key, []).append(result)
    tensors, sizes, first = [], [], 0
    for lanes, group in zip(vectors, kinds.values(), strict=True):
        tensors.append(tuple(_result_tensors(result) for result in group))
        members = []
        for result in group:
            members.append(_result_sizes(result, first, lanes, config["OUT"], entry_pool))
            pixels = result.y.shape[0] * result.size[0] * result.size[1]
            first += members[-1].blocks * -(-pixels // config["PIXELS"])
        sizes.append(tuple(members))
    _triton.launch(
        triton_kernels.multiscale_conv_kernel,
        first,
        results[0].y.device,
        *(tuple(tensors), passed(tuple(sizes))),
        VECTORS=tuple(vectors),
        MODES=tuple(tuple(term.mode for term in group[0].terms) for group in kinds.values()),
        K=kernel_size,
        AFFINE=results[0].scale is not None,
        PRELU=results[0].slope is not None,
        ADJOINT=adjoint,
        ENTRY=entry_pool,
        WIDE=wide,
        maxnreg=_triton.MAX_REGISTERS,
        **config,
    )


def _conv_config(results: Sequence[Result], kernel_size: int, adjoint: bool, widest: int) -> Config:
    y = results[0].y
    pixels = max(r.y.shape[0] * r.size[0] * r.size[1] for r in results)
    configs = triton_kernels.CONFIGS
    default = configs[2] if kernel_size > 1 else configs[1 if pixels < _FEW_PIXELS else 0]
    candidates = [default, *(config for config in configs if config is not default)]
    name = "bwd" if adjoint else "fwd"
    key = f"{name}-{y.dtype}-k{kernel_size}-c{widest.bit_length()}-p{pixels.bit_length()}"
    config = tuned("multiscale_conv_kernel", key, candidates, y.device)
    if config["IN"] > 1:
        return config
    routes = adjoint and any(result.maxima is not None for result in results)
    # Finding maxima takes as many registers as the sums do.
    most = config["OUT"] // 2 if routes else config["OUT"]
    return {**config, "OUT": min(most, _power_of_two(widest))}


def _kind(result: Result) -> object:
    """What results have in common whose programs run the same code."""
    return (
        tuple((term.mode, term.source.dtype, term.weight.dtype) for term in result.terms),
        tuple(t.dtype for t in _epilogue(result)),
    )


def _result_tensors(result: Result) -> ResultTensors:
    return ResultTensors(
        tuple(term.source for term in result.terms),
        tuple(term.weight for term in result.terms),
        result.y,
        *_epilogue(result),
    )


def _epilogue(result: Result) -> Iterator[Tensor]:
    tensors = (result.scale, result.shift, result.slope, result.maxima)
    return (result.y if t is None else t for t in tensors)


def _result_sizes(
    result: Result, first: int, vector: int, out: int, entry_pool: bool
) -> ResultSizes:
    terms = (
        TermSizes(
            term.offset,
            _effective(term),
            _read(term.source, term.size, 1 if entry_pool or term.mode != SAME else vector),
        )
        for term in result.terms
    )
    channels = result.y.shape[1]
    return ResultSizes(
        first,
        -(-channels // out),
        result.y.shape[0],
        channels,
        result.size[0],
        result.size[1] // vector,
        result.rows,
        result.columns,
        _strides(result.y, vector),
        _strides(result.y if result.maxima is None else result.maxima, 1),
        tuple(terms),
    )


def _effective(term: Term) -> int:
    """Beyond the map every tap but the centre reads padding, whatever the dilation."""
    return min(term.dilation, max(term.size))


def weight_gradients(
    blocks: Sequence[Block], weights: int, kernel_size: int, *, entry_pool: bool
) -> Tensor:
    """The gradients of `weights` weights, [weights] in float32; zeros where there is no block.

    Programs sum over some pixels each; how many depends on nothing but the sizes.
    """
    device = blocks[0].x.device
    config = _weight_config(blocks, kernel_size)
    pixels = max(_pixels(block) for block in blocks)
    tiles = sum(
        -(-block.grad.shape[1] // config["OUT"]) * -(-block.x.shape[1] // config["IN"])
        for block in blocks
    )
    enough = _ENOUGH_PROGRAMS // (tiles * kernel_size**2)
    splits = max(1, min(enough, MOST_SPLITS, -(-pixels // config["PIXELS"])))
    partial = torch.zeros(splits, weights, device=device)
    for i in range(0, len(blocks), MAX_RESULTS):
        part = blocks[i : i + MAX_RESULTS]
        _correlate(part, partial, kernel_size, entry_pool, config)
    return partial.sum(0)


def _correlate(
    blocks: Sequence[Block], partial: Tensor, kernel_size: int, entry_pool: bool, config: Config
) -> None:
    wide = any(_is_wide_block(block, config["PIXELS"]) for block in blocks)
    kinds: dict[object, list[Block]] = {}
    for block in blocks:
        key = (block.mode, block.grad.dtype, id(block) if wide else None)
        kinds.setdefault(key, []).append(block)
    splits, weights = partial.shape
    tensors, sizes, first = [], [], 0
    for group in kinds.values():
        tensors.append(tuple(BlockTensors(block.grad, block.x) for block in group))
        members = []
        for block in group:
            grad_blocks = -(-block.grad.shape[1] // config["OUT"])
            x_blocks = -(-block.x.shape[1] // config["IN"])
            members.append(
                BlockSizes(
                    first,
                    grad_blocks,
                    x_blocks,
                    block.x.shape[0],
                    block.offset,
                    block.rows,
                    block.columns,
                    weights,
                    min(block.dilation, max(block.size)),
                    -(-_pixels(block) // (config["PIXELS"] * splits)),
                    _read(block.grad, size_of(block.grad), 1),
                    _read(block.x, block.size, 1),
                )
            )
            first += grad_blocks * x_blocks * kernel_size**2 * splits
        sizes.append(tuple(members))
    _triton.launch(
        gradient_kernels.multiscale_weight_kernel,
        first,
        partial.device,
        *(tuple(tensors), passed(tuple(sizes)), partial),
        MODES=tuple(group[0].mode for group in kinds.values()),
        K=kernel_size,
        ENTRY=entry_pool,
        WIDE=wide,
        maxnreg=_triton.MAX_REGISTERS,
        **config,
    )


def _weight_config(blocks: Sequence[Block], kernel_size: int) -> Config:
    x = blocks[0].x
    pixels = max(_pixels(block) for block in blocks).bit_length()
    widest = max(max(block.grad.shape[1], block.x.shape[1]) for block in blocks).bit_length()
    key = f"{x.dtype}-k{kernel_size}-c{widest}-p{pixels}"
    return tuned("multiscale_weight_kernel", key, gradient_kernels.WEIGHT_CONFIGS, x.device)


def _pixels(block: Block) -> int:
    return block.x.shape[0] * block.grad.shape[2] * block.grad.shape[3]


def _read(x: Tensor, size: Size, vector: int) -> Read:
    return Read(x.shape[1], size[0], size[1] // vector, _strides(x, vector))


def _strides(x: Tensor, vector: int) -> Strides:
    if vector == 1:
        return Strides(*x.stride())
    image, channel, row, _ = (stride // vector for stride in x.stride())
    return Strides(image, channel, row, 1)


def _vector(features: Sequence[Tensor], most: int) -> int:
    """Columns that are read at once: those of an aligned access of 16 bytes, or fewer."""
    vector = min(most, _VECTOR_BYTES // features[0].element_size())
    while vector > 1 and not all(_in_vectors(x, vector) for x in features):
        vector //= 2
    return vector


def _in_vectors(x: Tensor, vector: int) -> bool:
    return (
        x.stride(3) == 1
        and x.shape[3] % vector == 0
        and x.data_ptr() % (vector * x.element_size()) == 0
        and all(stride % vector == 0 for stride in x.stride()[:3])
    )


def _is_wide(result: Result, pixels: int) -> bool:
    """Whether offsets in a plane, strides or the count of pixels need 64 bits."""
    features = [result.y, *(term.source for term in result.terms)]
    if result.maxima is not None:
        features.append(result.maxima)
    return _need_64_bits(features, result.y.shape[0] * result.size[0] * result.size[1] + pixels)


def _is_wide_block(block: Block, pixels: int) -> bool:
    return _need_64_bits((block.grad, block.x), 2 * (_pixels(block) + MOST_SPLITS * pixels))


def _need_64_bits(features: Iterable[Tensor], pixels: int) -> bool:
    return pixels > MOST or any(extent > MOST for x in features for extent in _reach(x))


def _reach(x: Tensor) -> Iterator[int]:
    """Strides, and how far a plane stretches, with some space for what is masked out."""
    yield from x.stride()
    yield 2 * (x.shape[2] * x.stride(2) + x.shape[3] * x.stride(3))


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
