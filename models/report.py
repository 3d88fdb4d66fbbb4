"""The HTML report of a run: one self-contained file with pictures, curves and tables."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment
from matplotlib.figure import Figure
from PIL import Image

from lmwp_models.data.panels import Panel


@dataclasses.dataclass(frozen=True)
class RankedPanel:
    """A picture of the report with its own scores."""

    panel: Panel
    scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything the page shows, in the order given; scores of the centre prior and the network."""

    title: str
    facts: dict[str, str]
    scores: dict[
        str, dict[str, tuple[float, float]]
    ]  # protocol -> metric -> (centre prior, network)
    best: Sequence[RankedPanel]
    worst: Sequence[RankedPanel]
    cost: dict[str, str]
    environment: dict[str, str]
    commands: Sequence[str]
    log: Path  # log.jsonl of the run


def write_report(path: Path, report: Report) -> Path:
    """Render `report` to `path` and return it."""
    template = (resources.files("lmwp_models") / "templates" / "report.html").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["picture"] = _data_uri
    page = environment.from_string(template).render(
        report=report, curves=_curves(_read_log(report.log))
    )
    path.write_text(page, encoding="utf-8")
    return path


def _read_log(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _curves(records: list[dict]) -> str:
    """Training loss over steps, and the validation scores, as inline SVG."""
    steps = [r for r in records if r["event"] == "step"]
    checks = [r for r in records if r["event"] == "validation"]
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = np.array([r["loss"] for r in steps])
    left.plot([r["step"] for r in steps], losses, color="0.8", linewidth=0.8, label="each step")
    window = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    left.plot([r["step"] for r in steps][window - 1 :], smooth, label=f"mean of {window}")
    left.set(xlabel="step", ylabel="training loss (BCE)", ylim=(0, None))
    left.legend()
    epochs = [r["epochs"] for r in checks]
    right.plot(epochs, [r["max_f_dataset"] for r in checks], "o-", label="max F (higher is better)")
    right.plot(epochs, [r["mae"] for r in checks], "s-", label="MAE (lower is better)")
    right.set(xlabel="epochs", ylabel="validation", ylim=(0, 1), xlim=(0, max(epochs, default=1)))
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration, which HTML does not take


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    image.thumbnail((360, 360))
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
