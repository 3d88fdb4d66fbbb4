import numpy as np
import numpy.typing as npt

compiler: str

Indices = npt.NDArray[np.int32]

def cpu_capability() -> str: ...
def pack_blocks(
    mask: npt.NDArray[np.bool_], rows: int, columns: int, slab: int
) -> tuple[Indices, Indices]: ...
def check_blocks(
    offsets: Indices, columns: Indices, block_rows: int, block_columns: int, slab: int
) -> None: ...
def check_rising(indices: Indices, end: int) -> None: ...
