"""torch.compile over depthwise_scales: one graph, right strides, no recompile per size."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import lmwp_ops


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Block(torch.nn.Module):
    """Work before and after the op, so that its inputs and outputs are the compiler's."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = lmwp_ops.nn.DepthwiseScales([3, 5], affine=True, prelu=True)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        high, low = self.scales([x * 2, z + 1])
        return (high.relu().mean() + low.sigmoid().mean()) * 3


def inputs(height: int, width: int, memory_format: torch.memory_format) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, 3, height, width).contiguous(memory_format=memory_format)
    z = torch.randn(2, 5, height // 2, width // 2).contiguous(memory_format=memory_format)
    return x.requires_grad_(), z.requires_grad_()


def step(function: object, block: Block, x: Tensor, z: Tensor) -> list[Tensor]:
    loss = function(x, z)
    return [loss.detach(), *torch.autograd.grad(loss, [x, z, *block.parameters()])]


@pytest.mark.parametrize(
    ("backend", "memory_format"),
    [
        ("aot_eager", torch.contiguous_format),
        ("aot_eager", torch.channels_last),
        ("inductor", torch.channels_last),
    ],
    ids=str,
)
def test_one_graph_with_the_eager_values(backend: str, memory_format: torch.memory_format) -> None:
    block = Block()
    x, z = inputs(11, 14, memory_format)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(block, fullgraph=True, backend=counter)
    torch.testing.assert_close(step(compiled, block, x, z), step(block, block, x, z))
    assert counter.frame_count == 1


def test_sizes_do_not_recompile() -> None:
    block = Block()
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    x, z = inputs(12, 14, torch.contiguous_format)
    step(compiled, block, x, z)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for height, width in ((16, 10), (9, 33), (40, 7)):
            x, z = inputs(height, width, torch.contiguous_format)
            torch.testing.assert_close(step(compiled, block, x, z), step(block, block, x, z))


def test_inference_is_one_graph_without_recompiles() -> None:
    block = Block().eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=counter)
    with torch.no_grad():
        for height, width in ((12, 14), (16, 10)):
            x, z = inputs(height, width, torch.contiguous_format)
            torch.testing.assert_close(compiled(x, z), block(x, z))
    assert counter.frame_count == 1


def test_autocast_inside_a_graph() -> None:
    weight = torch.randn(3, 1, 3, 3, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return lmwp_ops.depthwise_scales([x], [weight])[0]

    x = torch.randn(1, 3, 8, 9)
    y = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, function(x))


def test_forced_backend_acts_on_a_compiled_graph() -> None:
    x, w = torch.randn(1, 3, 8, 9, dtype=torch.float64), torch.randn(3, 1, 3, 3).double()

    def function(x: Tensor) -> Tensor:
        return lmwp_ops.depthwise_scales([x], [w])[0]

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = compiled(x)
    with torch._dynamo.config.patch(error_on_recompile=True):
        with lmwp_ops.use_backend("cpp"), pytest.raises(lmwp_ops.BackendError, match="was forced"):
            compiled(x)
        assert torch.equal(compiled(x), expected)


def test_export_keeps_the_op_whole() -> None:
    block = Block().eval()
    x, z = inputs(12, 14, torch.contiguous_format)
    program = torch.export.export(block, (x.detach(), z.detach()))
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("lmwp_ops.depthwise_scales.default") == 1
    torch.testing.assert_close(program.module()(x, z), block(x, z))
