"""What the runs of networks have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NetworkRun:
    """A network at one batch and size: where, how, and against whom it is run.

    `dtype` is that of the network, in training that of autocast; `size` is (H, W).
    """

    network: str
    batch: int
    size: tuple[int, int]
    dtype: str
    device: str
    threads: int
    peers: tuple[str, ...]
    seconds: float

    @property
    def case(self) -> str:
        """Name of the case in tables."""
        return f"{self.size[0]}x{self.size[1]}, batch {self.batch}"

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of its rows."""
        return {
            "device": self.device.split(":")[0],
            "dtype": self.dtype,
            "batch": self.batch,
            "size": f"{self.size[0]}x{self.size[1]}",
            "threads": self.threads,
        }
