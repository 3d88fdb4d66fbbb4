"""The channel configuration of CSNet: integers from which the whole network is rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from lmwp_models.fields import as_counts, as_sequence, check_fields, check_widths
from lmwp_models.head_config import HeadConfig

STAGES = (3, 4, 6, 4)
BASE_WIDTH = 20


@dataclass(frozen=True)
class CSNetConfig:
    """Channels of CSNet.

    `blocks[k]`: output channels per branch of the k-th ILBlock in order of execution, branch 0 at
    the stage's resolution, branch 1 at half of it, 0 for an empty branch; one number for a block
    that gives a single branch. Block 0 is stage 0, then `stages[s]` blocks for stages 1 to 4.
    `head` is None for the bare extractor, whose last block must give a single branch; with a
    head, the last blocks of stages 2, 3 and 4 must.
    """

    blocks: tuple[tuple[int, ...], ...]
    head: HeadConfig | None
    stages: tuple[int, ...] = STAGES

    def __post_init__(self) -> None:
        if len(self.stages) != 4 or any(count < 1 for count in self.stages):
            raise ValueError(f"stages: expected four counts of at least 1, got {self.stages}")
        if len(self.blocks) != 1 + sum(self.stages):
            raise ValueError(
                f"blocks: expected {1 + sum(self.stages)} (1 + the sum of stages), "
                f"got {len(self.blocks)}"
            )
        for k, widths in enumerate(self.blocks):
            if len(widths) not in (1, 2):
                raise ValueError(f"blocks[{k}]: expected 1 or 2 branches, got {list(widths)}")
            check_widths(f"blocks[{k}]", widths)
        for k in self.head_inputs if self.head else (len(self.blocks) - 1,):
            if len(self.blocks[k]) != 1:
                raise ValueError(
                    f"blocks[{k}]: expected a single branch at the end of its stage, "
                    f"got {list(self.blocks[k])}"
                )
        if self.head and len(self.head.fuse) != len(self.head_inputs):
            raise ValueError(f"head.fuse: expected 3 scales, got {len(self.head.fuse)}")

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Index into `blocks` of the last block of stages 0 to 4."""
        return tuple(accumulate((0, *self.stages)))

    @property
    def head_inputs(self) -> tuple[int, ...]:
        """Index of the blocks whose outputs the head fuses: the ends of stages 2, 3 and 4."""
        return self.stage_ends[2:]

    @classmethod
    def unpruned(
        cls,
        base_width: int = BASE_WIDTH,
        split: Sequence[int] = (1, 1),
        *,
        head: bool = True,
    ) -> CSNetConfig:
        """The network before pruning: stage widths 1, 1, 2, 4, 4 times `base_width`.

        `split` is the proportion of each width given to each branch: (1, 1), (3, 1), ..., (1,).
        """
        widths = [base_width * factor for factor in (1, 1, 2, 4, 4)]
        merged = {2, 3, 4} if head else {4}
        blocks: list[tuple[int, ...]] = []
        for stage, (width, count) in enumerate(zip(widths, (1, *STAGES), strict=True)):
            blocks += [split_width(width, split)] * count
            if stage in merged:
                blocks[-1] = (width,)
        fusion = HeadConfig.unpruned([width // 3 for width in widths[2:]]) if head else None
        return cls(tuple(blocks), fusion)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, ready for JSON."""
        return {
            "network": "csnet",
            "blocks": [list(widths) for widths in self.blocks],
            "head": self.head.to_dict() if self.head else None,
            "stages": list(self.stages),
        }

    @classmethod
    def from_dict(cls, data: object) -> CSNetConfig:
        """Raises `ValueError` naming the field that is missing, unknown or wrong."""
        fields = check_fields(
            "CSNet config", data, required={"blocks", "head"}, optional={"network", "stages"}
        )
        if fields.get("network", "csnet") != "csnet":
            raise ValueError(f"network: expected 'csnet', got {fields['network']!r}")
        blocks = as_sequence("blocks", fields["blocks"])
        head = fields["head"]
        return cls(
            tuple(as_counts(f"blocks[{k}]", widths) for k, widths in enumerate(blocks)),
            None if head is None else HeadConfig.from_dict(head),
            as_counts("stages", fields.get("stages", STAGES)),
        )


def split_width(width: int, split: Sequence[int]) -> tuple[int, ...]:
    """`width` channels shared out in the proportion `split`, cut at rounded cumulative shares."""
    total = sum(split)
    ends = [round(width * share / total) for share in accumulate(split)]
    return tuple(end - start for start, end in pairwise([0, *ends]))
