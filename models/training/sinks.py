"""Where the records of a run go: JSON lines, TensorBoard, picture panels."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lmwp_models.data.panels import Panel, panel_grid, write_png
from lmwp_models.errors import writing


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One optimiser step: `loss` without the decay penalty R, which stands beside it."""

    step: int
    epoch: int
    loss: float
    penalty: float
    learning_rate: float
    images_per_second: float


class Sink(Protocol):
    """Receives what a training run reports."""

    def step(self, record: StepRecord) -> None: ...

    def validation(
        self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
    ) -> None: ...

    def close(self) -> None: ...


class JsonLinesSink:
    """Appends one JSON object a line; a resumed run goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 (see close)

    def step(self, record: StepRecord) -> None:
        self._write({"event": "step", **dataclasses.asdict(record)})

    def validation(
        self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
    ) -> None:
        self._write({"event": "validation", "step": step, "epochs": epochs, **metrics})

    def close(self) -> None:
        with writing(self._path):
            self._file.close()

    def _write(self, record: dict[str, object]) -> None:
        with writing(self._path):
            self._file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")


class TensorBoardSink:
    """Scalars and panels for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of import time

        self._folder = folder
        with writing(folder):
            self._writer = SummaryWriter(str(folder))

    def step(self, record: StepRecord) -> None:
        with writing(self._folder):
            for name in ("loss", "penalty", "learning_rate", "images_per_second"):
                self._writer.add_scalar(f"train/{name}", getattr(record, name), record.step)

    def validation(
        self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
    ) -> None:
        with writing(self._folder):
            for name, value in metrics.items():
                self._writer.add_scalar(f"validation/{name}", value, step)
            if panels:
                self._writer.add_image("panels", panel_grid(panels), step, dataformats="HWC")

    def close(self) -> None:
        with writing(self._folder):
            self._writer.close()


class PanelSink:
    """Writes the panels of each validation as `epoch-0001.png`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def step(self, record: StepRecord) -> None:
        pass

    def validation(
        self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
    ) -> None:
        if panels:
            path = self._folder / f"epoch-{epochs:04d}.png"
            with writing(path):
                write_png(path, panel_grid(panels))

    def close(self) -> None:
        pass
