"""What needs a GPU; skipped where torch sees none. `make gpu-check` runs these tests."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

Move = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def _full_precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """TF32 would hide what a float32 kernel gets wrong, and make eager the worse of two."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session")
def on_gpu(device: torch.device) -> Move:
    """Brings a tensor to the GPU with its strides and the storage around it."""

    def move(t: Tensor) -> Tensor:
        storage = torch.empty(0, dtype=t.dtype).set_(t.untyped_storage())
        return storage.to(device).as_strided(t.shape, t.stride(), t.storage_offset())

    return move
