"""Other people's small networks, for the run-time tables of the papers.

Built from their papers, with random weights, which is enough for timing. Each takes [N, 3, H, W]
and gives logits [N, 1, H, W]; outputs that only serve a loss in training are left out, so the
counts are those of inference.
"""

from __future__ import annotations

from lmwp_bench.rivals import enet, espnetv2, hvpnet, mobilenetv2, samnet
from lmwp_bench.rivals.rival import Rival

__all__ = ["RIVALS", "Rival"]

RIVALS: dict[str, Rival] = {
    module.RIVAL.name: module.RIVAL for module in (enet, espnetv2, hvpnet, samnet, mobilenetv2)
}
