"""How figures look: inline SVG, and a colour and a marker for each variant over the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib
from markupsafe import Markup
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lmwp_bench.report.comparison import is_ours

ACCENT = "#1456c8"
LOSS = "#b3261e"
WIDTH = 10.0  # inches, of every figure
_PEERS = ("#8f8f8f", "#e09f3e", "#4f9d69", "#9c6ade", "#a0522d", "#d977a8", "#3aa6b0", "#a3a300")
_MARKERS = "osD^vP*X"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # names are shown as they are
    "svg.hashsalt": "lmwp",  # the same results give the same page
}

T = TypeVar("T")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Figures made within look alike, whatever the user's own settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def svg(figure: Figure) -> Markup:
    """The figure as an element of a page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # HTML takes no XML declaration


def plain_numbers(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: 0.5, 1, 20; more of them within a decade."""
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@dataclass(frozen=True)
class Palette:
    """Colours and markers of all variants of a page; ours share the accent colour."""

    variants: Sequence[str]

    def colour(self, variant: str) -> str:
        if is_ours(variant):
            return ACCENT
        return _PEERS[self._place(variant) % len(_PEERS)]

    def marker(self, variant: str) -> str:
        return _MARKERS[self._place(variant) % len(_MARKERS)]

    def _place(self, variant: str) -> int:
        """Place among ours, or among the others."""
        return [v for v in self.variants if is_ours(v) == is_ours(variant)].index(variant)


def pages(items: Sequence[T], height: Callable[[T], float], limit: float) -> list[list[T]]:
    """Items in order, as many to a figure as fit within `limit`."""
    found: list[list[T]] = []
    used = limit
    for item in items:
        used += height(item)
        if used > limit or not found:
            found.append([])
            used = height(item)
        found[-1].append(item)
    return found
