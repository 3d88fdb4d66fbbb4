"""A training run put together: data, network, validation, records."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.progress import Progress
from torch import nn

from lmwp_models.cli.output import make_progress, print_skipped, progress
from lmwp_models.data import (
    AugmentConfig,
    MemorySource,
    SaliencyDataset,
    Source,
    SubsetSource,
    holdout,
    open_source,
)
from lmwp_models.data.panels import Panel
from lmwp_models.device import set_up_cpu
from lmwp_models.errors import UserError
from lmwp_models.evaluation import evaluate
from lmwp_models.predict import Predictor
from lmwp_models.registry import create_model
from lmwp_models.training import distributed
from lmwp_models.training.interruption import Stopped
from lmwp_models.training.sinks import JsonLinesSink, PanelSink, Sink, StepRecord, TensorBoardSink
from lmwp_models.training.trainer import Trainer, Validation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmwp_models.training.recipe import Recipe


class Session:
    """Everything `recipe` needs, with the records of the run under `folder`.

    A context manager: the progress bar runs and the logs are open inside it. Of several processes
    the main one alone speaks and keeps records.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, threads: int | None = None) -> None:
        set_up_cpu(threads)
        torch.manual_seed(recipe.train.seed)
        data = recipe.data
        speaks = distributed.is_main()
        with progress("read pictures", hidden=not speaks) as report:
            source = open_source(
                data.train,
                list_file=data.list_file,
                cache_dir=data.cache_dir,
                max_side=data.max_side,
                skip_bad=data.skip_bad,
                on_progress=report,
            )
            if data.cache == "ram":
                source = MemorySource(source, report)
        if speaks:
            print_skipped(source.skipped)
        training, validation = _split(source, data.holdout, recipe.train.seed)
        self.validation_source = SubsetSource(source, validation)
        self._bar = make_progress(
            "loss {task.fields[loss]:.4f}",
            "{task.fields[speed]:.1f} images/s",
            hidden=not speaks,
        )
        self._sinks: list[Sink] = []
        if speaks:
            self._sinks += [
                JsonLinesSink(folder / "log.jsonl"),
                TensorBoardSink(folder / "tensorboard"),
                PanelSink(folder / "panels"),
            ]
        self.trainer = Trainer(
            recipe,
            create_model(recipe.model.name, **recipe.model.options),
            SaliencyDataset(
                SubsetSource(source, training),
                data.image_size,
                AugmentConfig(**recipe.augment.model_dump()),
                recipe.train.seed,
            ),
            folder,
            validate=self.validate if validation else None,
            sinks=self._sinks,
        )
        if speaks:
            self._sinks.append(ProgressSink(self._bar, self.trainer.total_steps))

    def fit(self) -> int:
        """Train to the end: 0, or after a signal its exit status, having said how to continue."""
        try:
            self.trainer.fit()
        except Stopped as stop:
            if distributed.is_main():
                print(stop, file=sys.stderr)
                print(f"continue with: lmwp train --resume {self.trainer.run}", file=sys.stderr)
            return 128 + stop.signum
        return 0

    def validate(self, model: nn.Module) -> Validation:
        """Score `model` on the held-out pictures as the CSNet paper does."""
        predictor = self.predictor(model)
        result = evaluate(predictor, self.validation_source, protocols=("salmetric",))
        metrics = result.metrics["salmetric"]
        return Validation(metrics["max_f_dataset"], metrics, self._panels(predictor))

    def predictor(self, model: nn.Module) -> Predictor:
        """Maps pictures with `model` at the size it is trained at."""
        side = self.trainer.recipe.data.image_size
        return Predictor(model, input_size=(side, side), device=self.trainer.device)

    def _panels(self, predictor: Predictor) -> list[Panel]:
        source = self.validation_source
        count = min(self.trainer.recipe.train.panels, len(source))
        samples = [source[i] for i in range(count)]
        return [Panel(s.name, s.image, s.mask, predictor(s.image)) for s in samples]

    def __enter__(self) -> Session:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        with ExitStack() as closing:  # all of them, even where one fails
            for sink in self._sinks:
                closing.callback(sink.close)


def _split(source: Source, count: int, seed: int) -> tuple[list[int], list[int]]:
    if count >= len(source):
        raise UserError(
            f"data.holdout = {count}: the data set has only {len(source)} pictures; "
            "lower it, or set it to 0 to train without validation"
        )
    return holdout(source.names, count, seed, contents=source.contents)


class ProgressSink:
    """Shows the run on a progress bar."""

    def __init__(self, bar: Progress, total_steps: int) -> None:
        self._bar = bar
        self._task = bar.add_task("train", total=total_steps, loss=float("nan"), speed=0.0)

    def step(self, record: StepRecord) -> None:
        self._bar.update(
            self._task,
            description=f"epoch {record.epoch + 1}",
            completed=record.step,
            loss=record.loss,
            speed=record.images_per_second,
        )

    def validation(
        self, step: int, epochs: int, metrics: dict[str, float], panels: Sequence[Panel]
    ) -> None:
        self._bar.console.print(
            f"after epoch {epochs}: max F {metrics['max_f_dataset']:.4f}, MAE {metrics['mae']:.4f}"
        )

    def close(self) -> None:
        pass
