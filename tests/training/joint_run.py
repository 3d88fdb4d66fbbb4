"""What each of two processes runs for test_distributed.py: `joint_run.py MODE FOLDER`."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from lmwp_models.errors import UserError
from lmwp_models.training import distributed
from lmwp_models.training import trainer as trainer_module
from lmwp_models.training.loss import LOSSES, saliency_loss
from lmwp_models.training.sync_batch_norm import synchronise_batch_norms

from .small import Recorder, make_trainer, weights

# In float64: Adam divides gradients that are all rounding by their size.
RUNS = {
    "penalty": {"dtype": torch.float64, "decay": {"weight": 3.0}},
    "decoupled": {
        "dtype": torch.float64,
        "decay": {"mode": "decoupled", "weight": 3.0},
        "optimizer": {"lr": 2e-3, "clip_norm": 0.1},
        "train": {"accumulate": 2, "ema": 0.9, "batch_size": 8},
        "data": {"cache": "device"},
    },
}


def features():
    """Features [6, 3, 5, 4] of other statistics in every sample, and a gradient of their norm."""
    generator = torch.Generator().manual_seed(1)
    x, dy = torch.randn(2, 6, 3, 5, 4, generator=generator, dtype=torch.float64)
    return 3 * x + 20 + torch.arange(6.0).view(-1, 1, 1, 1), dy


def normalised(network, x, dy):
    """What a network of one norm gives for x and dy, and its buffers afterwards."""
    x = x.clone().requires_grad_()
    y = network(x)
    y.backward(dy)
    gradients = {f"d{name}": p.grad for name, p in network.named_parameters()}
    return {"y": y.detach(), "dx": x.grad} | gradients | dict(network.named_buffers())


def compare(folder):
    """Everything that must not depend on how many processes there are; rank 0 keeps it."""
    rank = distributed.rank()
    results = {}
    for momentum in (0.1, None):
        network = nn.Sequential(nn.BatchNorm2d(3, momentum=momentum)).double()
        synchronise_batch_norms(network)
        x, dy = (t[3 * rank : 3 * rank + 3] for t in features())
        results[f"norm {momentum}"] = normalised(network, x, dy)
    for name, sections in RUNS.items():
        recorder = Recorder()
        trainer = make_trainer(folder / f"{name}-{rank}", pictures=18, sinks=[recorder], **sections)
        trainer.fit()
        average = trainer.average.state_dict() if trainer.average else {}
        results[name] = {"weights": weights(trainer), "average": average, "log": recorder.steps}
    results["unused"] = unused_parameter(folder / f"unused-{rank}")
    results["mistake"] = mistake_in_the_other_process(folder / f"mistake-{rank}")
    torch.save(results, folder / f"results-{rank}.pt")


def unused_parameter(folder):
    """What is said of a loss that leaves a part of the network out."""
    extra = nn.Parameter(torch.zeros(2))
    try:
        make_trainer(folder, extra=extra).fit()
    except UserError as error:
        return str(error)


def mistake_in_the_other_process(folder):
    """What each process says to a loss that is not finite in process 1."""

    def poisoned(outputs, masks):
        loss = saliency_loss(outputs, masks)
        return loss * float("nan") if distributed.rank() == 1 else loss

    LOSSES["bce"] = poisoned
    trainer = make_trainer(folder)
    try:
        trainer.fit()
    except UserError as error:
        share = trainer._plan.passes(0, 0)[0]
        names = [trainer.dataset.source.names[i] for i in share]
        return type(error).__name__, str(error), names


class Vanish(Recorder):
    """Process 1 gets a signal after its second step."""

    def __init__(self, signum):
        super().__init__()
        self.signum = signum

    def step(self, record):
        if record.step == 2:
            os.kill(os.getpid(), self.signum)


def vanish(folder, signum):
    """Process 0 must not wait for ever for one that is gone, or stands still."""
    trainer_module.SYNC_EVERY = 1
    sinks = [Vanish(signum)] if distributed.rank() == 1 else []
    trainer = make_trainer(folder, sinks=sinks, train={"checkpoint_every": 1})
    try:
        trainer.fit()
    except UserError as error:
        sys.exit(f"mistake: {error}")


def main():
    mode, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    with distributed.process_group("cpu", timedelta(seconds=12 if mode == "still" else 120)):
        if mode == "compare":
            compare(folder)
        else:
            vanish(folder, signal.SIGKILL if mode == "killed" else signal.SIGSTOP)


if __name__ == "__main__":
    main()
