"""What `goctconv2d` accepts, and the shapes it returns."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import (
    argument_error,
    check_branches,
    check_epilogue,
    check_parameter,
)

OP = "goctconv2d"
Size = tuple[int, int]


def check(
    xs: Sequence[Tensor],
    weight: Tensor,
    scale: Sequence[Tensor],
    shift: Sequence[Tensor],
    slope: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
    cross_scale: bool,
    bilinear_down: bool,
    *,
    op: str = OP,
) -> None:
    """Raise ValueError in the name of `op` unless it can compute these arguments."""
    check_branches(op, xs, [c for c in in_channels if c])
    rows, columns = sum(out_channels), sum(in_channels)
    shape = tuple(weight.shape)
    if shape not in ((rows, columns, 1, 1), (rows, columns, 3, 3)):
        expected = f"shape [{rows}, {columns}, k, k] with k 1 or 3"
        raise argument_error(op, "weight", expected, list(shape))
    check_parameter(op, "weight", weight, shape, xs[0])
    check_epilogue(op, scale, shift, slope, [c for c in out_channels if c], xs[0])
    if not cross_scale:
        _check_same_scale(op, in_channels, out_channels)
    aligned = cross_scale and not bilinear_down
    _check_sizes(op, xs, in_channels, out_channels, entry_pool=entry_pool, aligned=aligned)


def check_gradients(
    grads: Sequence[Tensor],
    xs: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
) -> None:
    """Raise ValueError unless `grads` are gradients of the outputs."""
    shapes = output_shapes(xs, in_channels, out_channels, entry_pool)
    if len(grads) != len(shapes):
        raise argument_error(OP, "grads", f"{len(shapes)} tensors, one per branch", len(grads))
    for j, (grad, shape) in enumerate(zip(grads, shapes, strict=True)):
        if tuple(grad.shape) != shape:
            raise argument_error(OP, f"grads[{j}]", f"shape {list(shape)}", list(grad.shape))


def input_sizes(
    xs: Sequence[Tensor], in_channels: Sequence[int], entry_pool: bool
) -> dict[int, Size]:
    """Size (H, W) of every present input branch, after the entry pool."""
    step = 2 if entry_pool else 1
    present = [i for i, width in enumerate(in_channels) if width]
    return {i: (x.shape[2] // step, x.shape[3] // step) for i, x in zip(present, xs, strict=True)}


def branch_sizes(inputs: Mapping[int, Size], out_channels: Sequence[int]) -> dict[int, Size]:
    """Size (H, W) of every present output branch, given those of the present input branches."""
    finest = min(inputs)
    height, width = inputs[finest]
    sizes = {}
    for j, channels in enumerate(out_channels):
        if not channels:
            continue
        if j in inputs:
            sizes[j] = inputs[j]
        elif j > finest:
            sizes[j] = (height // 2 ** (j - finest), width // 2 ** (j - finest))
        else:
            sizes[j] = (height * 2 ** (finest - j), width * 2 ** (finest - j))
    return sizes


def output_shapes(
    xs: Sequence[Tensor],
    in_channels: Sequence[int],
    out_channels: Sequence[int],
    entry_pool: bool,
) -> list[tuple[int, int, int, int]]:
    """[N, C, H, W] of every present output branch."""
    sizes = branch_sizes(input_sizes(xs, in_channels, entry_pool), out_channels)
    return [(xs[0].shape[0], out_channels[j], *size) for j, size in sizes.items()]


def _check_same_scale(op: str, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    for j, width in enumerate(outputs):
        if width and (j >= len(inputs) or not inputs[j]):
            expected = f"0 for branch {j}, which has no input and no cross-scale terms"
            raise argument_error(op, "out_channels", expected, width)


def _check_sizes(
    op: str,
    xs: Sequence[Tensor],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    entry_pool: bool,
    aligned: bool,
) -> None:
    """No branch may vanish; max-pooled terms need branches that halve (rounding down) per scale."""
    step = 2 if entry_pool else 1
    sizes = input_sizes(xs, inputs, entry_pool)
    for x, (i, (height, width)) in zip(xs, sizes.items(), strict=True):
        if height == 0 or width == 0:
            got = f"{x.shape[2]} x {x.shape[3]}"
            raise argument_error(op, f"xs, branch {i}", f"at least {step} x {step} pixels", got)
    finest = min(sizes)
    for j, (height, width) in branch_sizes(sizes, outputs).items():
        if height == 0 or width == 0:
            got = "{} x {}".format(*sizes[finest])
            expected = f"at least {2 ** (j - finest)} pixels a side to reach output branch {j}"
            raise argument_error(op, f"xs, branch {finest}", expected, got)
    if aligned:
        for i, size in sizes.items():
            halved = tuple(side // 2 ** (i - finest) for side in sizes[finest])
            if size != halved:
                expected = "{} x {}, branch {} halved".format(*halved, finest)
                raise argument_error(op, f"xs, branch {i}", expected, "{} x {}".format(*size))
