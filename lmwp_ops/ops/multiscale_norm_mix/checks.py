"""What `multiscale_norm_mix` accepts; every error names op, argument, expected and got."""

from collections.abc import Sequence

from torch import Tensor

from lmwp_ops.ops._arguments import argument_error
from lmwp_ops.ops.multiscale_mix.checks import check_branches, check_gradient, check_table

OP = "multiscale_norm_mix"


def check(
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    gamma: Tensor,
    beta: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
    eps: float,
) -> None:
    """Raise ValueError unless the op can compute these arguments."""
    check_branches(OP, u, weights, mix, octaves, dilations)
    check_table(OP, "gamma", gamma, (len(octaves), u.shape[1]), u)
    check_table(OP, "beta", beta, (len(octaves), u.shape[1]), u)
    if not eps > 0:
        raise argument_error(OP, "eps", "a positive number", eps)
    n, _, h, w = u.shape
    window = 2 ** max(octaves)
    if n == 1 and h <= window and w <= window:
        expected = f"more than one value per channel, also at octave {max(octaves)}"
        raise argument_error(OP, "u", expected, f"shape {list(u.shape)}")


def check_backward(
    grad: Tensor,
    u: Tensor,
    weights: Tensor,
    mix: Tensor,
    gamma: Tensor,
    beta: Tensor,
    batch_mean: Tensor,
    batch_var: Tensor,
    octaves: Sequence[int],
    dilations: Sequence[int],
    eps: float,
    wanted: Sequence[bool],
) -> None:
    """Raise ValueError unless these are arguments of the op, the gradient of its result and the
    statistics."""
    check(u, weights, mix, gamma, beta, octaves, dilations, eps)
    check_gradient(OP, grad, u, wanted, kinds=5)
    for name, statistics in (("batch_mean", batch_mean), ("batch_var", batch_var)):
        if statistics.shape != gamma.shape or statistics.dtype != mix.dtype:
            expected = f"{mix.dtype} of shape {list(gamma.shape)}"
            got = f"{statistics.dtype} of shape {list(statistics.shape)}"
            raise argument_error(OP, name, expected, got)
