"""The module of `lmwp_ops.dilated_bank`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from lmwp_ops.ops.dilated_bank import dilated_bank


class DilatedBank(nn.Module):
    """Parallel dense 3 x 3 convolutions without bias at several dilations, for several scales.

    Args:
        in_channels: width of every scale.
        out_channels: `out_channels[b][d]` output channels of scale `b` at `dilations[d]`,
            0 for none.
        dilations: positive ints.
        weight_scale: the stored weights are multiplied by this before use.

    The weights are `convs.<scale>.<dilation index>.weight`; one with 0 channels does not exist.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[Sequence[int]],
        dilations: Sequence[int] = (1, 2, 4, 8, 16),
        *,
        weight_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels = tuple(in_channels)
        self.out_channels = tuple(tuple(row) for row in out_channels)
        self.dilations = tuple(dilations)
        self.weight_scale = weight_scale
        self.convs = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(d): nn.Conv2d(width, out, 3, padding=rate, dilation=rate, bias=False)
                    for d, (out, rate) in enumerate(zip(row, self.dilations, strict=True))
                    if out
                }
            )
            for width, row in zip(self.in_channels, self.out_channels, strict=True)
        )

    def forward(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """One `[N, C, H, W]` per scale to the concatenated outputs of every scale with any."""
        keys = [str(d) for d in range(len(self.dilations))]
        scales = cast(Iterable[Mapping[str, nn.Conv2d]], self.convs)
        weights = [
            [self.weight_scale * convs[key].weight if key in convs else None for key in keys]
            for convs in scales
        ]
        return dilated_bank(xs, weights, self.dilations)

    def extra_repr(self) -> str:
        return f"dilations={list(self.dilations)}, weight_scale={self.weight_scale}"
