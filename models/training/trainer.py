"""The training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lmwp_models.csnet import DecayUnit
from lmwp_models.data import SaliencyDataset
from lmwp_models.data.panels import Panel
from lmwp_models.errors import UserError, writing
from lmwp_models.training import distributed
from lmwp_models.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from lmwp_models.training.decay import DynamicWeightDecay
from lmwp_models.training.ema import WeightAverage
from lmwp_models.training.feed import Part, Plan, make_feed
from lmwp_models.training.graphed_pass import GraphedPass
from lmwp_models.training.interruption import Interruption, Stopped
from lmwp_models.training.journal import FinishedStep, Journal
from lmwp_models.training.loss import LOSSES, Outputs
from lmwp_models.training.optim import build_optimizer
from lmwp_models.training.precision import Precision
from lmwp_models.training.recipe import Recipe
from lmwp_models.training.schedule import learning_rate
from lmwp_models.training.sinks import Sink
from lmwp_models.training.sync_batch_norm import synchronise_batch_norms
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


class Trainer:
    """Trains `model` as `recipe` says and keeps everything under the folder `run`.

    Writes `checkpoints/` and, after each validation that improves the score,
    `best.safetensors`; at the end `final.safetensors`. With `train.ema` those two hold the
    averaged weights, which are also the ones validated. The order of the pictures and their
    augmentation depend on seed, epoch and index alone, so a resumed run on the CPU repeats an
    uninterrupted one bit for bit.

    Inside `distributed.process_group` the processes train one network together, each on its share
    of every batch; the main process alone validates and writes.
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
        self.recipe, self.dataset, self.run = recipe, dataset, run
        self.validate, self.sinks = validate, sinks
        self.device = distributed.local_device(options.device)
        self._plan = Plan(len(dataset), options.batch_size, options.accumulate, options.seed)
        self.steps_per_epoch = self._plan.steps_per_epoch
        self.total_steps = self.steps_per_epoch * options.epochs
        self._memory_format = (
            torch.channels_last if options.channels_last else torch.contiguous_format
        )
        self.model = model.to(self.device)
        self.model.to(memory_format=self._memory_format)  # type: ignore[call-overload]
        self._parallel: DistributedDataParallel | None = None
        if distributed.size() > 1:
            synchronise_batch_norms(model)
            self._parallel = DistributedDataParallel(model)
        self.average = WeightAverage(model, options.ema) if options.ema else None
        self.decay = DynamicWeightDecay(_decay_units(recipe, model), recipe.decay.scaling)
        self.optimizer = build_optimizer(model, recipe.optimizer, self.decay.gammas)
        self._precision = Precision(self.device, options.amp)
        self._loss = LOSSES[options.loss]
        self._network: Callable[[Tensor], Outputs] = self._parallel or model
        if options.compile:
            self._network = torch.compile(self._network, dynamic=False)
        self._pass: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = self._forward_backward
        if options.cuda_graphs:
            self._pass = GraphedPass(self._forward_backward, self.device)
        self._feed = make_feed(dataset, recipe.data, self.device)
        self._journal = Journal(self.sinks, options.batch_size)
        self._interruption = Interruption()
        self.step = 0
        self.best_score = float("-inf")
        self._validations_since_best = 0

    @property
    def trained(self) -> nn.Module:
        """The network to validate and keep: the averaged one, where there is one."""
        return self.average.model if self.average else self.model

    @property
    def out_of_patience(self) -> bool:
        """Whether `train.patience` validations in a row have brought no better score."""
        return 0 < self.recipe.train.patience <= self._validations_since_best

    def fit(self) -> None:
        """Train to the end of the recipe, or until patience is out.

        Raises `Stopped` after saving when SIGTERM or SIGINT arrives, and `UserError` when the
        loss is not finite, the disk refuses to be written or another process is lost.
        """
        with self._interruption, distributed.naming_lost_processes():
            while self.step < self.total_steps and not self.out_of_patience:
                self._train_epoch(self.step // self.steps_per_epoch)
                self._end_epoch(self.step // self.steps_per_epoch)
            distributed.on_main(lambda: self._save_weights("final"))

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        for parts in self._steps(epoch):
            self._train_step(epoch, parts)
            if self.step % SYNC_EVERY == 0:
                self._journal.flush()
            if self.step % self.steps_per_epoch == 0:
                break  # an epoch is validated before its checkpoint, so no score is ever lost
            # Processes agree on a stop when they wait for each other anyway.
            if distributed.size() == 1 or self.step % SYNC_EVERY == 0:
                self._stop_if_asked()
            if self.step % self.recipe.train.checkpoint_every == 0:
                self.save()
        self._journal.flush()

    def _steps(self, epoch: int) -> Iterator[tuple[Part, ...]]:
        """What is left of an epoch: the parts of each step that comes after `self.step`."""
        passes = self._plan.passes(epoch, self.step - epoch * self.steps_per_epoch)
        parts = self._feed(epoch, passes)
        return zip(*[parts] * self.recipe.train.accumulate, strict=True)

    def _train_step(self, epoch: int, parts: Sequence[Part]) -> None:
        recipe = self.recipe
        rate = learning_rate(
            recipe.schedule, recipe.optimizer.lr, self.step, self.steps_per_epoch, self.total_steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=not recipe.train.cuda_graphs)
        found, strengths = [], []
        for part in parts:
            with self._gradients_shared(part is parts[-1]):
                images = part.images.contiguous(memory_format=self._memory_format)
                found.append(torch.stack(self._pass(images, part.masks)))
            if recipe.decay.mode == "decoupled":
                strengths.append(self.decay.strength().clone())
        if self._parallel and self.step == 0:
            self._check_gradients()
        self._precision.step(self.optimizer, recipe.optimizer.clip_norm)
        if recipe.decay.mode == "decoupled":
            strength = distributed.mean(torch.stack(strengths).mean(0))
            self.decay.decay_(rate * recipe.decay.weight, strength)
        self.step += 1
        if self.average:
            self.average.update(self.step)
        loss, penalty = torch.stack(found).mean(0)
        names = [name for part in parts for name in part.names]
        self._journal.add(FinishedStep(self.step, epoch, rate, loss, penalty, names))

    def _forward_backward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Add the gradients of one part to the parameters'; its loss and decay penalty R."""
        with self._precision.autocast():
            outputs = self._network(images)
        loss = total = self._loss(outputs, masks)
        penalty = loss.new_zeros(())
        if self.recipe.decay.mode == "penalty":
            penalty = self.decay.penalty()
            total = loss + self.recipe.decay.weight * penalty
        self._precision.backward(total / self.recipe.train.accumulate)
        return loss.detach(), penalty.detach()

    def _check_gradients(self) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                raise UserError(
                    f"train.loss = {self.recipe.train.loss!r}: gives {name} no gradient, which "
                    "several processes cannot share; choose another loss, or train in one process"
                )

    def _gradients_shared(self, now: bool) -> AbstractContextManager[Any]:
        """Processes add up their gradients after the last part of a step only."""
        return nullcontext() if now or not self._parallel else self._parallel.no_sync()

    def _end_epoch(self, epochs_done: int) -> None:
        last = self.step == self.total_steps
        if self.validate and (last or epochs_done % self.recipe.train.validate_every == 0):
            score = distributed.on_main(lambda: self._validate(epochs_done))
            self._validations_since_best += 1
            if score > self.best_score:
                self.best_score, self._validations_since_best = score, 0
            self._journal.restart_clock()
        if not last:
            self._stop_if_asked()
        self.save()

    def _validate(self, epochs_done: int) -> float:
        assert self.validate is not None
        self.trained.eval()
        with torch.no_grad():
            result = self.validate(self.trained)
        metrics = {**result.metrics, **_pruning_shares(self.trained)}
        for sink in self.sinks:
            sink.validation(self.step, epochs_done, metrics, result.panels)
        if result.score > self.best_score:
            self._save_weights("best")
        return result.score

    def _stop_if_asked(self) -> None:
        if signum := distributed.highest(self._interruption.signum):
            raise Stopped(signum, self.save())

    def save(self) -> Path:
        """Write a checkpoint of this step; never of a step whose loss was not finite."""
        self._journal.flush()
        return distributed.on_main(self._save)

    def _save(self) -> Path:
        return save_checkpoint(
            self.run,
            self.step,
            self.model,
            {
                "step": self.step,
                "best_score": self.best_score,
                "validations_since_best": self._validations_since_best,
                "pictures": self._fingerprint,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self._precision.state_dict(),
                "average": self.average.state_dict() if self.average else None,
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
        self._validations_since_best = state["validations_since_best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self._precision.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random"])
        return True

    def _save_weights(self, stem: str) -> None:
        path = self.run / f"{stem}.safetensors"
        with writing(path):
            self.run.mkdir(parents=True, exist_ok=True)
            save_model(self.trained, path, name=self.recipe.model.name, input_size=self._input_size)

    @cached_property
    def _fingerprint(self) -> str:
        """Changes when the training pictures or their order do."""
        return blake2b("".join(self.dataset.source.contents).encode(), digest_size=16).hexdigest()

    @property
    def _input_size(self) -> tuple[int, int]:
        return (self.recipe.data.image_size, self.recipe.data.image_size)


def _decay_units(recipe: Recipe, model: nn.Module) -> list[DecayUnit]:
    """The layers whose gammas the recipe decays."""
    if recipe.decay.mode == "off":
        return []
    units: Callable[[], list[DecayUnit]] | None = getattr(model, "decay_units", None)
    if units is None:
        raise UserError(
            f"decay.mode = {recipe.decay.mode!r}: {recipe.model.name} has no gammas under dynamic "
            "weight decay; set decay.mode=off"
        )
    return units()


def _pruning_shares(model: nn.Module) -> dict[str, float]:
    """What a network with gates pruned in its last forward pass, stage by stage."""
    shares: Callable[[], dict[str, Any]] = getattr(model, "pruning_shares", dict)
    return {
        f"{stage}.{name}": value
        for stage, found in shares().items()
        for name, value in dataclasses.asdict(found).items()
    }
