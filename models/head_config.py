"""The channel configuration of the cross-stage fusion head, shared by CSNet and CSF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmwp_models.fields import as_count, as_counts, as_sequence, check_fields, check_widths

DILATIONS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class HeadConfig:
    """Channels of the cross-stage fusion head.

    `fuse[s]`: output of the first octave conv at scale s; `ms[s][d]`: output of the dilated conv
    of scale s at the d-th dilation (0 where there is none); `fuse1x1`: output of the last octave
    conv.
    """

    fuse: tuple[int, ...]
    ms: tuple[tuple[int, ...], ...]
    fuse1x1: int

    def __post_init__(self) -> None:
        check_widths("head.fuse", self.fuse)
        if len(self.ms) != len(self.fuse):
            raise ValueError(
                f"head.ms: expected {len(self.fuse)} scales like head.fuse, got {len(self.ms)}"
            )
        for s, row in enumerate(self.ms):
            if len(row) != len(DILATIONS):
                raise ValueError(
                    f"head.ms[{s}]: expected {len(DILATIONS)} counts, one per dilation "
                    f"{list(DILATIONS)}, got {list(row)}"
                )
            as_counts(f"head.ms[{s}]", row)
            if any(row) and not self.fuse[s]:
                raise ValueError(f"head.ms[{s}]: expected zeros, as head.fuse[{s}] is 0")
        check_widths("head.ms (sums per scale)", self.ms_widths)
        check_widths("head.fuse1x1", (self.fuse1x1,))

    @property
    def ms_widths(self) -> tuple[int, ...]:
        """Output channels of the dilated bank at every scale."""
        return tuple(sum(row) for row in self.ms)

    @classmethod
    def unpruned(cls, fuse: Sequence[int]) -> HeadConfig:
        """The head whose bank keeps the widths of `fuse`, an even share for each dilation."""
        return cls(tuple(fuse), tuple(split_over_dilations(c) for c in fuse), sum(fuse))

    def to_dict(self) -> dict[str, Any]:
        return {
            "fuse": list(self.fuse),
            "ms": [list(row) for row in self.ms],
            "fuse1x1": self.fuse1x1,
        }

    @classmethod
    def from_dict(cls, data: object) -> HeadConfig:
        """Raises `ValueError` naming the field that is missing, unknown or wrong."""
        fields = check_fields("head", data, required={"fuse", "ms", "fuse1x1"})
        ms = as_sequence("head.ms", fields["ms"])
        return cls(
            as_counts("head.fuse", fields["fuse"]),
            tuple(as_counts(f"head.ms[{s}]", row) for s, row in enumerate(ms)),
            as_count("head.fuse1x1", fields["fuse1x1"]),
        )


def split_over_dilations(width: int) -> tuple[int, ...]:
    """An equal share of `width` for each dilation, the remainder to the last."""
    share = width // len(DILATIONS)
    return (share,) * (len(DILATIONS) - 1) + (width - share * (len(DILATIONS) - 1),)
