"""Where the records of a run go: JSON lines, TensorBoard, picture panels."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

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
    """Scalars and panels for TensorBoard, in a file of its own for every process that writes."""

    def __init__(self, folder: Path) -> None:
        # A second of import time. SummaryWriter would write in a thread, where a full disk is a
        # traceback.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._event = Event
        with writing(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(open(self._path, "ab"))  # noqa: SIM115 (see close)
        self._write(0, file_version="brain.Event:2")

    def step(self, record: StepRecord) -> None:
        from torch.utils.tensorboard.summary import scalar

        for name in ("loss", "penalty", "learning_rate", "images_per_second"):
            self._write(record.step, summary=scalar(f"train/{name}", getattr(record, name)))

    def validation(
        self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
    ) -> None:
        from torch.utils.tensorboard.summary import image, scalar

        for name, value in metrics.items():
            self._write(step, summary=scalar(f"validation/{name}", value))
        if panels:
            self._write(step, summary=image("panels", panel_grid(panels), dataformats="HWC"))

    def close(self) -> None:
        with writing(self._path):
            self._records.close()

    def _write(self, step: int, **content: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **content)
        with writing(self._path):
            self._records.write(event.SerializeToString())
            self._records.flush()


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
