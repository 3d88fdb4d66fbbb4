"""The GPUs that kernels are compiled for."""

import pytest

from build_tools.cuda import DEFAULT_ARCHS

_IN_EVERY_RUN = ("7.5", "9.0")  # the oldest, without asynchronous copies, and one with them

# "7.5", as nvcc's toolkit names them; those not compiled for in every run are slow.
NAMES = [
    pytest.param(name, id=name, marks=() if name in _IN_EVERY_RUN else pytest.mark.slow)
    for name in DEFAULT_ARCHS
]
# 75, as Triton names them.
NUMBERS = [
    pytest.param(
        int(name.values[0].replace(".", "")), id=name.id.replace(".", ""), marks=name.marks
    )
    for name in NAMES
]
OLDEST_GPU = 75
