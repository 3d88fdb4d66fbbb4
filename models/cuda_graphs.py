"""Calls of one function replayed as CUDA graphs: a launch for all of its kernels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

import lmwp_ops

Function = Callable[[Tensor], Tensor]
CAPACITY = 8  # kinds of input remembered


class GraphedCall:
    """`function` captured for inputs of the shape, dtype, layout and device of `x`.

    `function` must be deterministic in the kernels it launches, wait for nothing and keep what it
    reads where it is. Calls of one object must follow each other, on any streams.
    """

    def __init__(self, function: Function, x: Tensor) -> None:
        self._input = torch.empty_like(x, memory_format=_memory_format(x)).copy_(x)
        with torch.cuda.device(x.device):
            caller, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(caller)
            with torch.cuda.stream(side):
                function(self._input)  # whatever libraries do at first use on a stream
            caller.wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads may go on allocating memory meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._output = function(self._input)
            self._done = torch.cuda.Event()

    def __call__(self, x: Tensor) -> Tensor:
        with torch.cuda.device(x.device):
            stream = torch.cuda.current_stream()
            stream.wait_event(self._done)  # the last call may be under way on another stream
            self._input.copy_(x)
            self._graph.replay()
            y = self._output.clone()
            self._done.record(stream)
        return y

    def close(self) -> None:
        """Wait until nothing of it is under way, so that its memory may go."""
        self._done.synchronize()


class GraphCache:
    """Runs a function, and from the second input of one kind on replays a graph of it.

    The kind of an input is its shape, dtype, layout and device, and the backend that is forced. The
    least recently used of eight kinds is forgotten. Every output is a tensor of its own. Safe to
    call from several threads: one of them at a time captures, or copies its input, replays and
    copies the output out, on its current stream. A copy or a pickle of a cache is empty.
    """

    def __init__(self, capture: Callable[[Function, Tensor], Any] = GraphedCall) -> None:
        self._capture = capture
        self._calls: OrderedDict[Hashable, Any] = OrderedDict()  # None: seen once
        self._lock = threading.Lock()

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        """`function(x)`; the function is the same in every call."""
        kind = (x.shape, x.dtype, x.device, _memory_format(x), lmwp_ops.forced_backend())
        with self._lock:
            is_known = kind in self._calls
            call = self._calls.setdefault(kind, None)
            self._calls.move_to_end(kind)
            if len(self._calls) > CAPACITY:
                _close(self._calls.popitem(last=False)[1])
            if is_known:
                if call is None:
                    call = self._calls[kind] = self._capture(function, x)
                result: Tensor = call(x)
                return result
        return function(x)

    def clear(self) -> None:
        """Forget everything: what the function reads has moved."""
        with self._lock:
            for call in self._calls.values():
                _close(call)
            self._calls.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphCache:
        return GraphCache(self._capture)

    def __reduce__(self) -> tuple[type[GraphCache], tuple[Any]]:
        return GraphCache, (self._capture,)


def can_be_graphed(x: Tensor) -> bool:
    """Whether a call on `x` is one to replay: on a GPU, and nothing else records or changes it."""
    return (
        x.is_cuda
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and not torch._C._len_torch_dispatch_stack()
        and not torch.is_autocast_enabled("cuda")
        and not torch.cuda.is_current_stream_capturing()
        and not lmwp_ops.is_decomposed()
    )


def _close(call: Any) -> None:
    if call is not None:
        call.close()


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not x.is_contiguous() else torch.contiguous_format
