"""The configuration of LMWP-Net: integers from which the whole network is rebuilt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmwp_models.fields import as_count, as_counts, as_sequence, check_fields
from lmwp_models.mwpm import BRANCHES

STAGES = 5


@dataclass(frozen=True)
class LMWPNetConfig:
    """Channels and blocks of LMWP-Net.

    `widths[s]` and `blocks[s]`: channels and MWPMs of stage s + 1, whose stride is 2^(s + 1);
    `expand`: how many times as wide an MWPM is inside; `branches`: (octave, dilation) of its
    depthwise branches; `reduction`: of its gate; `decoder[s]`: channels of the decoder at the
    stride of stage s + 1.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128, 320)
    blocks: tuple[int, ...] = (1, 1, 2, 3, 2)
    expand: int = 2
    branches: tuple[tuple[int, int], ...] = BRANCHES
    reduction: int = 4
    decoder: tuple[int, ...] = (16, 32, 64, 104)

    def __post_init__(self) -> None:
        lengths = {"widths": STAGES, "blocks": STAGES, "decoder": STAGES - 1}
        for name, length in lengths.items():
            counts = getattr(self, name)
            if len(counts) != length or min(counts) < (name != "blocks"):
                raise ValueError(f"{name}: expected {length} positive counts, got {list(counts)}")
        if self.widths[-1] < 4:
            raise ValueError(f"widths[4]: expected at least 4, got {self.widths[-1]}")
        for name in ("expand", "reduction"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.branches:
            raise ValueError("branches: expected at least one pair (octave, dilation)")
        for k, pair in enumerate(self.branches):
            if len(pair) != 2 or pair[1] < 1:
                expected = "a pair (octave, dilation), dilation at least 1"
                raise ValueError(f"branches[{k}]: expected {expected}, got {list(pair)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "network": "lmwpnet",
            "widths": list(self.widths),
            "blocks": list(self.blocks),
            "expand": self.expand,
            "branches": [list(pair) for pair in self.branches],
            "reduction": self.reduction,
            "decoder": list(self.decoder),
        }

    @classmethod
    def from_dict(cls, data: object) -> LMWPNetConfig:
        """Raises `ValueError` naming the field that is missing, unknown or wrong."""
        required = {"widths", "blocks", "expand", "branches", "reduction", "decoder"}
        fields = check_fields("LMWP-Net config", data, required=required, optional={"network"})
        if fields.get("network", "lmwpnet") != "lmwpnet":
            raise ValueError(f"network: expected 'lmwpnet', got {fields['network']!r}")
        branches = as_sequence("branches", fields["branches"])
        pairs = [as_counts(f"branches[{k}]", pair) for k, pair in enumerate(branches)]
        return cls(
            as_counts("widths", fields["widths"]),
            as_counts("blocks", fields["blocks"]),
            as_count("expand", fields["expand"]),
            tuple((*pair,) for pair in pairs),  # type: ignore[misc]
            as_count("reduction", fields["reduction"]),
            as_counts("decoder", fields["decoder"]),
        )
