"""The training loop."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader

from lmwp_models.csnet import DecayUnit
from lmwp_models.data import EpochSampler, SaliencyDataset
from lmwp_models.data.panels import Panel
from lmwp_models.device import resolve_device
from lmwp_models.errors import UserError
from lmwp_models.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from lmwp_models.training.decay import DynamicWeightDecay
from lmwp_models.training.loss import LOSSES
from lmwp_models.training.optim import build_optimizer
from lmwp_models.training.recipe import Recipe
from lmwp_models.training.schedule import learning_rate
from lmwp_models.training.sinks import Sink, StepRecord
from lmwp_models.weights import save_model

SYNC_EVERY = 10  # steps between reads of the loss, each of which makes a GPU wait


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a validation pass found: `score` decides which weights are the best ones."""

    score: float
    metrics: dict[str, float]
    panels: Sequence[Panel] = ()


class Validate(Protocol):
    """Measures a network, in evaluation mode, on pictures it was not trained on."""

    def __call__(self, model: nn.Module) -> Validation: ...


class Stopped(Exception):  # noqa: N818 - an order, not an error
    """Training was asked to stop by a signal; its state is saved."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; state saved in {checkpoint}")
        self.signum = signum
        self.checkpoint = checkpoint


class Trainer:
    """Trains `model` as `recipe` says and keeps everything under the folder `run`.

    Writes `checkpoints/` and, after each validation that improves the score,
    `best.safetensors`; at the end `final.safetensors`. The order of the pictures and their
    augmentation depend on seed, epoch and index alone, so a resumed run on the CPU repeats an
    uninterrupted one bit for bit.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        dataset: SaliencyDataset,
        run: Path,
        *,
        validate: Validate | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        options = recipe.train
        if len(dataset) < options.batch_size:
            raise UserError(
                f"train.batch_size = {options.batch_size}: larger than the training set of "
                f"{len(dataset)} pictures; lower it or give more pictures"
            )
        self.recipe, self.dataset, self.run = recipe, dataset, run
        self.validate, self.sinks = validate, sinks
        self.device = resolve_device(options.device)
        self.memory_format = (
            torch.channels_last if options.channels_last else torch.contiguous_format
        )
        self.model = model.to(self.device)
        self.model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.steps_per_epoch = len(dataset) // options.batch_size  # a short last batch is dropped
        self.total_steps = self.steps_per_epoch * options.epochs
        self._sampler = EpochSampler(len(dataset), options.seed)
        self.step = 0
        self.best_score = float("-inf")

        decay = recipe.decay
        decay_units: Callable[[], list[DecayUnit]] | None = getattr(model, "decay_units", None)
        if decay.mode != "off" and decay_units is None:
            raise UserError(
                f"decay.mode = {decay.mode!r}: {recipe.model.name} has no gammas under dynamic "
                "weight decay; set decay.mode=off"
            )
        units = decay_units() if decay_units and decay.mode != "off" else []
        self.decay = DynamicWeightDecay(units, decay.scaling)
        self.optimizer = build_optimizer(model, recipe.optimizer, self.decay.gammas)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.amp == "fp16")
        self._pending: list[_Pending] = []
        self._clock = time.perf_counter()
        self._stop_signal: int | None = None

    def fit(self) -> None:
        """Train to the end of the recipe.

        Raises `Stopped` after saving when SIGTERM or SIGINT arrives, and `UserError` when the
        loss is not finite or the disk refuses a checkpoint.
        """
        with self._catching_signals():
            while self.step < self.total_steps:
                self._train_epoch(self.step // self.steps_per_epoch)
                checkpoint = self._end_epoch(self.step // self.steps_per_epoch)
                if self._stop_signal is not None and self.step < self.total_steps:
                    raise Stopped(self._stop_signal, checkpoint)
        self._save_weights("final")

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        for names, images, masks in self._batches(epoch):
            self._train_step(epoch, names, images, masks)
            if self.step % SYNC_EVERY == 0:
                self._report()
            if self.step % self.steps_per_epoch == 0:
                break  # an epoch is validated before its checkpoint, so no score is ever lost
            if self._stop_signal is not None:
                raise Stopped(self._stop_signal, self.save())
            if self.step % self.recipe.train.checkpoint_every == 0:
                self.save()
        self._report()

    def _train_step(
        self, epoch: int, names: list[str], images: torch.Tensor, masks: torch.Tensor
    ) -> None:
        decay = self.recipe.decay
        rate = learning_rate(
            self.recipe.schedule,
            self.recipe.optimizer.lr,
            self.step,
            self.steps_per_epoch,
            self.total_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = images.to(self.device, non_blocking=True, memory_format=self.memory_format)
        masks = masks.to(self.device, non_blocking=True)
        with self._autocast():
            outputs = self.model(images)
        loss = total = LOSSES[self.recipe.train.loss](outputs, masks)
        penalty = torch.zeros((), device=self.device)
        if decay.mode == "penalty":
            penalty = self.decay.penalty()
            total = loss + decay.weight * penalty
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if decay.mode == "decoupled":
            self.decay.decay_(rate * decay.weight)
        self.step += 1
        self._pending.append(
            _Pending(self.step, epoch, rate, loss.detach(), penalty.detach(), names)
        )

    def _end_epoch(self, epochs_done: int) -> Path:
        last = self.step == self.total_steps
        if self.validate and (last or epochs_done % self.recipe.train.validate_every == 0):
            self.model.eval()
            with torch.no_grad():
                result = self.validate(self.model)
            for sink in self.sinks:
                sink.validation(self.step, epochs_done, result.metrics, result.panels)
            if result.score > self.best_score:
                self.best_score = result.score
                self._save_weights("best")
            self._clock = time.perf_counter()
        return self.save()

    def _batches(self, epoch: int) -> Iterator[tuple[list[str], torch.Tensor, torch.Tensor]]:
        """What is left of an epoch, from the batch that comes after `self.step`."""
        size = self.recipe.train.batch_size
        done = self.step - epoch * self.steps_per_epoch
        self.dataset.set_epoch(epoch)
        self._sampler.set_epoch(epoch, start=done * size)
        workers = self.recipe.data.workers
        if workers is None:
            workers = 0 if self.device.type == "cpu" else min(8, os.cpu_count() or 1)
        loader = DataLoader(
            self.dataset,
            batch_size=size,
            sampler=self._sampler,
            drop_last=True,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
        )
        names, order = self.dataset.source.names, list(self._sampler)
        for i, (images, masks) in enumerate(loader):
            yield [names[j] for j in order[i * size : (i + 1) * size]], images, masks

    def _autocast(self) -> torch.autocast:
        amp = self.recipe.train.amp
        dtype = torch.float16 if amp == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=amp != "off")

    def _report(self) -> None:
        """Read the losses of the steps since the last report and hand them to the sinks."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        losses = torch.stack([p.loss for p in pending]).tolist()
        penalties = torch.stack([p.penalty for p in pending]).tolist()
        now = time.perf_counter()
        speed = len(pending) * self.recipe.train.batch_size / (now - self._clock)
        self._clock = now
        for p, loss, penalty in zip(pending, losses, penalties, strict=True):
            # fp16 steps whose gradients overflow are skipped by the scaler, the loss is not.
            if not (abs(loss) < float("inf") and abs(penalty) < float("inf")):
                raise UserError(
                    f"loss is {loss} (decay penalty {penalty}) at step {p.step}, epoch {p.epoch}, "
                    f"batch: {', '.join(p.names)}; lower optimizer.lr or decay.weight, "
                    "or look at these pictures"
                )
            record = StepRecord(p.step, p.epoch, loss, penalty, p.rate, speed)
            for sink in self.sinks:
                sink.step(record)

    def save(self) -> Path:
        """Write a checkpoint of this step; never of a step whose loss was not finite."""
        self._report()
        return save_checkpoint(
            self.run,
            self.step,
            self.model,
            {
                "step": self.step,
                "best_score": self.best_score,
                "pictures": self._fingerprint,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": torch.get_rng_state(),
            },
            name=self.recipe.model.name,
            input_size=self._input_size,
        )

    def resume(self) -> bool:
        """Continue from the newest checkpoint of the run; False if there is none."""
        checkpoints = list_checkpoints(self.run)
        if not checkpoints:
            return False
        state: dict[str, Any] = load_checkpoint(checkpoints[-1], self.model)
        if state["pictures"] != self._fingerprint:
            raise UserError(
                f"{checkpoints[-1]} was trained on other pictures than data.train now holds; "
                "restore them, or start a new run"
            )
        self.step, self.best_score = state["step"], state["best_score"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        return True

    def _save_weights(self, stem: str) -> None:
        save_model(
            self.model,
            self.run / f"{stem}.safetensors",
            name=self.recipe.model.name,
            input_size=self._input_size,
        )

    @cached_property
    def _fingerprint(self) -> str:
        """Changes when the training pictures or their order do."""
        return blake2b("".join(self.dataset.source.contents).encode(), digest_size=16).hexdigest()

    @property
    def _input_size(self) -> tuple[int, int]:
        return (self.recipe.data.image_size, self.recipe.data.image_size)

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a stop after the current step (or validation)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(signum: int, frame: object) -> None:
            self._stop_signal = signum

        previous: dict[int, Callable[..., Any] | int | None] = {
            number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@dataclasses.dataclass
class _Pending:
    """A finished step whose loss has not been read from the device yet."""

    step: int
    epoch: int
    rate: float
    loss: torch.Tensor
    penalty: torch.Tensor
    names: list[str]
